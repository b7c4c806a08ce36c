"""What a guest says that it can do: groups of features that are kept as it last said them
(``spec/wire-protocol.md`` 8)."""

from __future__ import annotations

from qubesd.core.guest_events import FeaturesRequest
from qubesd.extension import Change, Extension, on
from qubesd.extensions.announced import has_own_root

_OF_SYSTEM = ("supported-service.", "supported-feature.")
_OF_QUBE = "supported-rpc."
"""A qube may have services of its own besides its template's."""


def _take(change: Change, event: FeaturesRequest) -> None:
    qube = change.system.qubes[event.subject]
    for group in (*(_OF_SYSTEM if has_own_root(qube) else ()), _OF_QUBE):
        said = {
            name
            for name, untrusted_value in event.untrusted_features.items()
            if name.startswith(group) and name != group and untrusted_value == "1"
        }
        if not said:
            continue  # an agent that is too old says nothing
        for name in sorted(qube.features):
            if name.startswith(group) and name not in said:
                change.remove_feature(qube.name, name)
        for name in sorted(said):
            change.set_feature(qube.name, name, "1")


EXTENSION = Extension(reactions=(on(FeaturesRequest, _take),))
