"""The ways to boot that a guest announces, as features ``boot-mode.*`` of its qube (``spec/wire-protocol.md``
8)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from qubesd.core.guest_events import FeaturesRequest
from qubesd.extension import Change, Extension, on
from qubesd.extensions.announced import has_own_root
from qubesd.model.state import Klass

_OPTIONS, _NAME, _USER = "boot-mode.kernelopts.", "boot-mode.name.", "boot-mode.default-user."
_DEFAULT = "default"
"""The mode that every guest has: no further options, nobody else logged in."""
_MOST = 64
"""Entries that count; all others are passed over."""
_CHOICES = ("boot-mode.active", "boot-mode.appvm-default", "boot-mode.standalone-default")


def _take(change: Change, event: FeaturesRequest) -> None:
    qube = change.system.qubes[event.subject]
    if not has_own_root(qube):
        return
    wanted = _modes(event.untrusted_features)
    if wanted:
        for name in qube.features:
            if name.startswith((_OPTIONS, _NAME, _USER)) and name not in wanted:
                change.remove_feature(qube.name, name)
        for name, value in wanted.items():
            change.set_feature(qube.name, name, value)
    known = _known(change.system.qubes[qube.name].features)
    for name in _CHOICES:
        untrusted_mode = event.untrusted_features.get(name)
        if name == "boot-mode.appvm-default" and qube.klass is not Klass.TEMPLATE:
            continue
        if untrusted_mode in known:
            change.set_feature(qube.name, name, untrusted_mode)


def _modes(untrusted_features: Mapping[str, str]) -> dict[str, str]:
    """Those of the announced entries that can be taken over, the first ones by name."""
    fitting = ((name, value) for name, value in sorted(untrusted_features.items()) if _fits(name))
    wanted: dict[str, str] = {}
    names: set[str] = set()
    for name, value in islice(fitting, _MOST):
        if name.startswith(_NAME):
            if value in names:
                continue  # two modes of one name could not be told apart
            names.add(value)
        wanted[name] = value
    return wanted


def _fits(untrusted_name: str) -> bool:
    for prefix in (_OPTIONS, _NAME, _USER):
        if untrusted_name.startswith(prefix):
            mode = untrusted_name.removeprefix(prefix)
            return bool(mode) and "." not in mode and (mode != _DEFAULT or prefix == _NAME)
    return False


def _known(features: Mapping[str, str]) -> set[str]:
    modes = {name.removeprefix(_OPTIONS) for name in features if name.startswith(_OPTIONS)}
    return modes | {_DEFAULT}


EXTENSION = Extension(reactions=(on(FeaturesRequest, _take),))
