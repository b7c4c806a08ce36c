"""One guest's database as a folder, a file for each key (``exposure`` says why). All of it blocks on files.

What stands in it comes from the guest, so no link in it is followed and nothing but plain files is read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEY = re.compile(r"(/[A-Za-z0-9_.+@:-]{1,96}){1,4}", re.ASCII)
_UNFINISHED = "~"
"""No key ends so."""


def is_key(text: str) -> bool:
    """Whether this can be a key: one to four words, each after a ``/``."""
    return _KEY.fullmatch(text) is not None and not {".", ".."} & set(text.split("/"))


class GuestDatabase:
    """The database of the qube whose folder this is, there or not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, key: str, most: int) -> list[str]:
        """The last words of the keys right below this one, at most ``most`` of them, in order."""
        # A folder that was opened for its place only cannot be listed itself.
        with (
            suppress(OSError),
            self._opened(key.split("/")[1:]) as folder,
            os.scandir(f"/proc/self/fd/{folder}") as entries,
        ):
            return sorted(entry.name for entry in islice(entries, most))
        return []

    def read(self, key: str, most: int) -> bytes | None:
        """The first ``most`` bytes of a value; ``None`` where there is none."""
        *above, last = key.split("/")[1:]
        with suppress(OSError), self._opened(above) as folder:
            descriptor = os.open(last, _READ, dir_fd=folder)
            try:
                return os.read(descriptor, most) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
            finally:
                os.close(descriptor)
        return None

    def write(self, key: str, value: str) -> None:
        """Give the key a value, in one step. Raises ``OSError``."""
        *above, last = key.split("/")[1:]
        with self._opened(above, make=True) as folder:
            unfinished = last + _UNFINISHED
            with suppress(FileNotFoundError):
                os.unlink(unfinished, dir_fd=folder)
            descriptor = os.open(unfinished, _WRITE, 0o640, dir_fd=folder)
            with open(descriptor, "wb") as file:
                file.write(value.encode())
            os.rename(unfinished, last, src_dir_fd=folder, dst_dir_fd=folder)

    def touch(self, key: str) -> None:
        """Make the key be there with nothing in it, and tell whoever watches it. Raises ``OSError``.

        It is a folder, for there are keys below it: as if an empty value was written in a QubesDB.
        """
        with self._opened(key.split("/")[1:], make=True) as folder:
            os.utime(f"/proc/self/fd/{folder}")

    def remove(self, key: str) -> None:
        """Take the key away, and those above it that have nothing below them any more; nothing where it is
        not there. Raises ``OSError``."""
        *above, last = key.split("/")[1:]
        with suppress(FileNotFoundError):
            with self._opened(above) as folder:
                os.unlink(last, dir_fd=folder)
            while above:
                *above, last = above
                with self._opened(above) as folder:
                    try:
                        os.rmdir(last, dir_fd=folder)
                    except OSError as error:
                        if error.errno != errno.ENOTEMPTY:
                            raise
                        return

    @contextmanager
    def _opened(self, words: list[str], make: bool = False) -> Iterator[int]:
        """The folder that these words lead to, a step at a time."""
        if make:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(self._folder, _FOLDER)
        try:
            for word in words:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(word, 0o750, dir_fd=descriptor)
                below = os.open(word, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)
