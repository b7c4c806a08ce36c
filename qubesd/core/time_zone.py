"""The time zone of this host, by its name."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,3}", re.ASCII)
_LONGEST = 128
_ZONES = "/zoneinfo/"


def time_zone(settings: Path = Path("/etc")) -> str | None:
    """The zone that ``timezone`` in the folder of settings names, else the one that ``localtime`` links to;
    ``None`` where neither names one."""
    for untrusted_zone in (_named(settings / "timezone"), _linked(settings / "localtime")):
        if untrusted_zone is not None and _ZONE.fullmatch(untrusted_zone) is not None:
            return untrusted_zone
    return None


def _named(file: Path) -> str | None:
    with suppress(OSError), file.open("rb") as opened:
        return opened.read(_LONGEST).decode("ascii", "replace").strip()
    return None


def _linked(link: Path) -> str | None:
    with suppress(OSError):
        _, mark, untrusted_zone = os.readlink(link).rpartition(_ZONES)
        return untrusted_zone if mark else None
    return None
