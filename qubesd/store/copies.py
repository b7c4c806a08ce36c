"""Copies of the store as daemons have found it at their start (``spec/qubes-xml.md`` 1): the way back from an
edit, from a mistake, or from what the store of an earlier version was made into."""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

from qubesd.disk import sync

KEPT = 20
"""The newest ones are kept."""

_COPY = re.compile(r"qubes-\d{4}-\d\d-\d\dT\d{6}\.xml", re.ASCII)
_LEFT = re.compile(r"\.copy-[a-z0-9_]{8}", re.ASCII)
"""What a killed write leaves. Copies of others, as the stock start-up job makes them, are theirs."""


def keep(folder: Path, data: bytes, now: float) -> None:
    """Put this content of a store aside, durably, unless the newest copy has it already.

    Args:
        folder: made where it is missing.
        now: seconds of the epoch, for the name.

    Raises:
        OSError: it cannot be written; the copies that were there are there still.
    """
    folder.mkdir(mode=0o750, exist_ok=True)
    for left in folder.iterdir():
        if _LEFT.fullmatch(left.name):
            left.unlink()
    copies = _copies(folder)
    if copies and copies[-1].read_bytes() == data:
        return
    fd, name = tempfile.mkstemp(prefix=".copy-", dir=folder)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(name, folder / time.strftime("qubes-%Y-%m-%dT%H%M%S.xml", time.gmtime(now)))
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(folder)
    for old in _copies(folder)[:-KEPT]:
        old.unlink()


def _copies(folder: Path) -> list[Path]:
    """Oldest first, by their names."""
    return sorted(place for place in folder.iterdir() if _COPY.fullmatch(place.name))
