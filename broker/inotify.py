"""The kernel's own news of files, read without a thread of its own."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from typing import NamedTuple

with warnings.catch_warnings():
    # It imports asyncore, which Python has deprecated, for a notifier that is not used here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import pyinotify

__all__ = ("Inotify", "News", "pyinotify")

_EVENT = struct.Struct("iIII")
_CHUNK = 64 * 1024


class News(NamedTuple):
    """Something happened at the watch of this number; without a ``name`` it is about the place itself."""

    number: int
    mask: int
    name: str


class Inotify:
    """One descriptor and its watches. Raises ``OSError`` where there is no more room for one."""

    def __init__(self) -> None:
        self._manager = pyinotify.WatchManager()
        self.descriptor: int = self._manager.get_fd()
        """Readable when ``news`` has something to say."""
        os.set_inheritable(self.descriptor, False)
        os.set_blocking(self.descriptor, False)

    def add(self, path: str, mask: int) -> int | None:
        """The number of the watch on a place, links not followed; ``None`` where the kernel refuses it."""
        try:
            added = self._manager.add_watch(path, mask | pyinotify.IN_DONT_FOLLOW, quiet=False)
        except (pyinotify.WatchManagerError, UnicodeEncodeError):
            return None
        number = next(iter(added.values()))
        assert isinstance(number, int)
        return number

    def place(self, number: int) -> str | None:
        """Where the watch of this number is; ``None`` where there is no such watch any more."""
        found = self._manager.get_path(number)
        assert found is None or isinstance(found, str)
        return found

    def remove(self, number: int) -> None:
        """End a watch; nothing where what it was on is gone, and with it the watch."""
        try:
            self._manager.rm_watch(number, quiet=False)
        except pyinotify.WatchManagerError:
            return

    def news(self) -> Iterator[News]:
        """What has happened until now. Does not wait.

        pyinotify's own reader gives up a whole batch at a file name that is not UTF-8, which anybody can make
        in a directory like ``/tmp``.
        """
        while True:
            try:
                data = os.read(self.descriptor, _CHUNK)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                if mask & pyinotify.IN_IGNORED and self._manager.get_watch(number) is not None:
                    self._manager.del_watch(number)
                yield News(number, mask, os.fsdecode(data[at - length : at].rstrip(b"\0")))

    def close(self) -> None:
        self._manager.close()
