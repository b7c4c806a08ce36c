"""The services that a guest is to run, from the features ``service.*`` of its qube (``spec/domains.md``
4)."""

from __future__ import annotations

from collections.abc import Mapping

from qubesd.extension import Extension, Look
from qubesd.model.properties import read
from qubesd.model.state import Qube

_FEATURE = "service."


def _entries(look: Look, qube: Qube) -> Mapping[str, str]:
    services = {
        name.removeprefix(_FEATURE): "1" if value else "0"
        for name, value in qube.features.items()
        if name.startswith(_FEATURE)
    }
    services["meminfo-writer"] = "1" if read(look, qube, "maxmem").value else "0"
    return {f"/qubes-service/{name}": value for name, value in services.items()}


EXTENSION = Extension(entries=_entries)
