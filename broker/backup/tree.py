"""What the archive of a home may name, and whether it does: one tree of paths below one folder.

A path is in the tree once, and only below a folder that was named before it. So no member can stand in the
place of another, and none is reached through a link, whatever the archive says that the link leads to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from broker.backup.members import LONGEST_PATH, Entry, Kind
from qubesd.errors import QubesError

MOST_MEMBERS = 1 << 20
_MOST_STEPS = 256
"""Of a path. Each is a descriptor while what was unpacked is gone through."""
_LONGEST_STEP = 255
_MOST_FILE = 1 << 44
"""Bytes of a file with its holes; what ext4 can have."""
_NO_STEPS = (b"", b".", b"..")

Steps = tuple[bytes, ...]


@dataclass(slots=True)
class Folder:
    """A folder of the tree.

    Attributes:
        inside: what is in it by name; ``None`` for what is no folder.
    """

    mode: int
    mtime: int
    inside: dict[bytes, Folder | None] = field(default_factory=dict)


class Place(NamedTuple):
    """Where a member goes, from the home on; of a hard link also what it is another name of."""

    steps: Steps
    target: Steps


class Tree:
    """What was named so far of the home at ``path`` in the archive, which is ``dom0-home/USER``.

    Args:
        most: how many members it may have.

    Attributes:
        home: its folder; ``None`` before that was named, which must be first.
    """

    def __init__(self, path: str, most: int = MOST_MEMBERS) -> None:
        self.home: Folder | None = None
        self._path = path
        self._above = tuple(path.encode("ascii").split(b"/"))
        self._left = self._most = most

    def add(self, entry: Entry) -> Place:
        """Where this member goes.

        Raises:
            QubesError: it may not be there, or be what it is.
        """
        steps = self._steps(entry.name)
        self._left -= 1
        if self._left < 0:
            raise QubesError(f"{self._path!r} has more than {self._most} members")
        if entry.kind is Kind.OTHER:
            raise self._refused(entry.name, "is a device, or nothing that a home has")
        if entry.size > _MOST_FILE:
            raise self._refused(entry.name, f"has {entry.size} bytes, which no file has")
        target: Steps = ()
        if entry.kind in (Kind.SYMLINK, Kind.LINK) and not 0 < len(entry.link) < LONGEST_PATH:
            raise self._refused(entry.name, "is a link that leads nowhere")
        if entry.kind is Kind.LINK:
            target = self._target(entry)
        self._enter(steps, entry)
        return Place(steps, target)

    def finished(self) -> Folder:
        """The home, when all was named; ``QubesError`` where nothing was."""
        if self.home is None:
            raise QubesError(f"{self._path!r} is empty")
        return self.home

    def _steps(self, name: bytes) -> Steps:
        steps = tuple(name.split(b"/"))
        if len(name) >= LONGEST_PATH or len(steps) > _MOST_STEPS:
            raise self._refused(name, "is too long a path")
        if any(step in _NO_STEPS or len(step) > _LONGEST_STEP for step in steps):
            raise self._refused(name, "is no path of a home")
        above, below = steps[: len(self._above)], steps[len(self._above) :]
        if above != self._above:
            raise self._refused(name, "is outside of it")
        return below

    def _enter(self, steps: Steps, entry: Entry) -> None:
        made = Folder(entry.mode, entry.mtime) if entry.kind is Kind.FOLDER else None
        if not steps:
            if made is None or self.home is not None:
                raise self._refused(entry.name, "is no folder, or twice there")
            self.home = made
            return
        inside = self._folder(steps, entry.name).inside
        if steps[-1] in inside:
            raise self._refused(entry.name, "is twice there")
        inside[steps[-1]] = made

    def _target(self, entry: Entry) -> Steps:
        steps = self._steps(entry.link)
        inside = self._folder(steps, entry.link).inside
        if not steps or steps[-1] not in inside or inside[steps[-1]] is not None:
            raise self._refused(entry.name, "is a hard link to what was not there before it, or to a folder")
        return steps

    def _folder(self, steps: Steps, name: bytes) -> Folder:
        """The folder that has the last of the steps."""
        folder = self.home
        for step in steps[:-1]:
            folder = folder.inside.get(step) if folder is not None else None
        if folder is None:
            raise self._refused(name, "is in no folder that was there before it")
        return folder

    def _refused(self, name: bytes, why: str) -> QubesError:
        shown = name[:80].decode("utf-8", "backslashreplace")
        return QubesError(f"{self._path!r}: {shown!r} {why}")
