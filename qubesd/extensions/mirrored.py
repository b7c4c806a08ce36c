"""What a guest is to keep and how it is to be set up, from features of its qube as they are
(``spec/domains.md`` 4)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from qubesd.extension import Extension, Look
from qubesd.model.state import Qube


def _entries(prefix: str, place: str, look: Look, qube: Qube) -> Mapping[str, str]:
    return {
        f"{place}{name.removeprefix(prefix)}": value
        for name, value in qube.features.items()
        if name.startswith(prefix)
    }


PERSISTENCE = Extension(entries=partial(_entries, "custom-persist.", "/persist/"))
SETTINGS = Extension(entries=partial(_entries, "vm-config.", "/vm-config/"))
