"""Folders that are done with, whose content was somebody else's: out of the way in one step, emptied later.

What stands in them may be deep, or much, or link anywhere. So nothing in them is followed, no more than two
of them are open at a time, and a sweep ends after so many steps; what it leaves is for the next one.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from itertools import islice
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST = 1_000_000
"""Entries that one sweep removes."""
_AT_ONCE = 1024
"""Names of one folder that are held in memory."""


class SetAside:
    """The place to which folders of one file system go."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def take(self, folder: Path) -> bool:
        """Move the folder here, whatever it is; whether it was there. Raises ``OSError``."""
        with suppress(FileNotFoundError):
            folder.lstat()
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.rename(self._place / _fresh())
            return True
        return False

    def sweep(self, most: int = _MOST) -> None:
        """Remove what is here, at most so many entries of it. Blocks on files. Raises ``OSError``."""
        with suppress(FileNotFoundError):
            place = os.open(self._place, _FOLDER)
            try:
                _sweep(place, most)
            finally:
                os.close(place)


def _sweep(place: int, left: int) -> None:
    """Folders below folders come up to the top first, so that none is ever far away."""
    while names := _some(place):
        for name in names:
            left -= _empty(place, name, left)
            if left <= 0:
                return


def _empty(place: int, name: str, most: int) -> int:
    """Remove one entry of the top, or what it holds; the number of steps that it took."""
    try:
        os.unlink(name, dir_fd=place)
        return 1
    except (IsADirectoryError, PermissionError):
        folder = os.open(name, _FOLDER, dir_fd=place)
    steps = 1
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.rename(entry.name, _fresh(), src_dir_fd=folder, dst_dir_fd=place)
                else:
                    os.unlink(entry.name, dir_fd=folder)
                steps += 1
                if steps > most:
                    return steps
        os.rmdir(name, dir_fd=place)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # it may have got more meanwhile, and is emptied again then
            raise
    finally:
        os.close(folder)
    return steps


def _some(place: int) -> list[str]:
    with os.scandir(place) as entries:
        return [entry.name for entry in islice(entries, _AT_ONCE)]


def _fresh() -> str:
    return secrets.token_hex(16)
