"""The small files of a qube in a backup: its firewall, its notes, and what extensions add to them."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from qubesd.core.folders import FIREWALL, NOTES
from qubesd.disk import reason
from qubesd.errors import StoreError

OWN = (FIREWALL, NOTES)
EMPTY = "empty"
"""The file of a qube of which there is nothing to save."""
MOST = 4 << 20
"""Bytes of a small file."""
MOST_ADDED = 16
"""Files that extensions may add to what is saved of one qube."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}", re.ASCII)
"""A member of the outer layer has a few more characters."""
_IMAGE = ".img"


def may_be_added(name: str) -> bool:
    """Whether this can be the name of an extension's file: one that nothing else of a qube has."""
    taken = name in (*OWN, EMPTY) or name.endswith(_IMAGE)
    return _NAME.fullmatch(name) is not None and not taken


def read_added(file: Path) -> bytes:
    """The content of a file that an extension adds. Blocks on the disk.

    Raises:
        StoreError: it is not there, no plain file, too large, or cannot be read.
    """
    try:
        content = _start(file, MOST + 1)
    except OSError as error:
        raise StoreError(
            f"{file}: an extension has it saved, and it cannot be read: {reason(error)}"
        ) from error
    if len(content) > MOST:
        raise StoreError(f"{file}: an extension has it saved, and it has more than {MOST} bytes")
    return content


def _start(file: Path, most: int) -> bytes:
    """So many bytes of a plain file. A pipe would have its reader wait for a writer."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "this is no plain file")
        with open(descriptor, "rb", closefd=False) as opened:
            return opened.read(most)
    finally:
        os.close(descriptor)
