"""Filling a new folder with a home, by descriptors of folders and never by a path or through a link.

Folders are open to nobody else while they are filled; what they are to be is set at the end, from below. Only
root gives what it makes to its owner.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.backup.members import Entry, Kind
from broker.backup.tree import Folder, Place, Steps
from qubesd.storage.receiving import write

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIPE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_MINE = 0o700


class Unpacking:
    """Puts members of an archive into the folder that is open as ``root``, which is empty and only ours.

    Args:
        owner: the user and the group that everything is to belong to; ``None`` for whoever does this.
    """

    def __init__(self, root: int, owner: tuple[int, int] | None) -> None:
        self._root = root
        self._owner = owner

    def put(self, place: Place, entry: Entry, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Make one member, new; the home itself is there. ``OSError`` where that cannot be done."""
        if not place.steps:
            return
        with self._above(place.steps) as (folder, name):
            match entry.kind:
                case Kind.FOLDER:
                    os.mkdir(name, _MINE, dir_fd=folder)
                case Kind.FILE:
                    with _closing(os.open(name, _FILE, 0o600, dir_fd=folder)) as file:
                        os.ftruncate(file, entry.size)
                        for start, piece in pieces:
                            write(file, memoryview(piece), start)
                        self._settle(file, entry.mode, entry.mtime)
                case Kind.LINK:
                    with self._above(place.target) as (other, target):
                        os.link(target, name, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)
                case Kind.SYMLINK:
                    os.symlink(entry.link, name, dir_fd=folder)
                    if self._owner is not None:
                        os.chown(name, *self._owner, dir_fd=folder, follow_symlinks=False)
                    times = (entry.mtime, entry.mtime)
                    os.utime(name, times, dir_fd=folder, follow_symlinks=False)
                case Kind.PIPE:
                    os.mkfifo(name, 0o600, dir_fd=folder)
                    with _closing(os.open(name, _PIPE, dir_fd=folder)) as pipe:
                        self._settle(pipe, entry.mode, entry.mtime)
                case _:
                    raise AssertionError(entry.kind)

    def finish(self, home: Folder) -> None:
        """Give every folder below the home what it is to be."""
        self._finish(self._root, home)

    def hand_over(self) -> None:
        """Give the home to its owner, and to nobody else; nothing can be added after this."""
        os.fchmod(self._root, _MINE)  # it may have got a bit from the folder above
        if self._owner is not None:
            os.fchown(self._root, *self._owner)

    def _finish(self, folder: int, made: Folder) -> None:
        for name, inside in made.inside.items():
            if inside is not None:
                with folder_at(name, folder) as below:
                    self._finish(below, inside)
                    self._settle(below, inside.mode, inside.mtime)

    def _settle(self, descriptor: int, mode: int, mtime: int) -> None:
        if self._owner is not None:
            os.fchown(descriptor, *self._owner)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, (mtime, mtime))

    @contextmanager
    def _above(self, steps: Steps) -> Iterator[tuple[int, bytes]]:
        """The folder that the last step is in, open, and that step."""
        folder = os.dup(self._root)
        try:
            for step in steps[:-1]:
                below = os.open(step, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder, steps[-1]
        finally:
            os.close(folder)


def empty(folder: int) -> None:
    """Remove all that is in the folder, and nothing that a link in it leads to."""
    for name in os.listdir(folder):
        try:
            os.unlink(name, dir_fd=folder)
        except IsADirectoryError:
            if os.geteuid():  # root needs no leave, and may not be alone here
                os.chmod(name, _MINE, dir_fd=folder)
            with folder_at(name, folder) as below:
                empty(below)
            os.rmdir(name, dir_fd=folder)


@contextmanager
def folder_at(name: bytes | str | Path, above: int | None = None) -> Iterator[int]:
    """The folder, which must be none behind a link, open."""
    with _closing(os.open(name, _FOLDER, dir_fd=above)) as folder:
        yield folder


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
