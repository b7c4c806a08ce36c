"""Datasets of ZFS: its tools' commands, and what they list (``zfs-list(8)``, ``zfsprops(7)``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qubesd.errors import StorageError
from qubesd.storage.commands import Run
from qubesd.storage.images import check_size

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}(/[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}){0,7}", re.ASCII)
"""What is taken as the name of a dataset; ZFS itself takes a little more (``zfs(8)``)."""
DEVICES = Path("/dev/zvol")

_WRITING = "org.qubes:writing"
_UNIT = 64 << 10
"""Sizes are rounded up to this many bytes, a multiple of every block size that is a default of ZFS."""
_ABSENT = "dataset does not exist"
"""What the tool says of one that is not there; its status is the same as for any failure."""
_NOTHING = "-"
"""How the tools write that a property is not set, or means nothing here."""


@dataclass(frozen=True, slots=True)
class Found:
    """A volume as it is: bytes, and its snapshots with their sizes, the oldest first."""

    size: int
    used: int
    origin: str
    writing: str
    """Who writes, as ``Datasets.note`` left it; empty for nobody."""
    written: int
    """Bytes written since the newest snapshot."""
    snapshots: dict[str, int | None]


class Datasets:
    """The datasets of this machine, by full name.

    Every method raises ``StorageError`` where a tool fails; ``devices`` is where the files of volumes lie.
    """

    def __init__(self, run: Run, devices: Path) -> None:
        self._run = run
        self._devices = devices

    def path(self, name: str) -> Path:
        """The device file of a volume, there or not."""
        return self._devices / name

    def device(self, name: str) -> Path:
        """The device file, once it is there: udev makes it after the tool has ended."""
        self._run(("udevadm", "settle", "--timeout=30"), b"")
        return self.path(name)

    def find(self, name: str) -> Found | None:
        """The volume, with one call of the tool; ``None`` where there is none."""
        fields = f"name,volsize,referenced,origin,{_WRITING},written,defer_destroy"
        try:
            text = self._zfs(
                "list", "-Hp", "-d", "1", "-t", "volume,snapshot", "-s", "createtxg", "-o", fields, name
            )
        except StorageError as error:
            if _ABSENT not in str(error):
                raise
            return None
        rows = [line.split("\t") for line in text.splitlines()]
        own = next((row for row in rows if row[0] == name), None)
        if own is None:
            return None
        # One that was destroyed stays for as long as there is a clone of it.
        kept = [row for row in rows if row[0].startswith(name + "@") and row[6] != "on"]
        snapshots = {row[0].partition("@")[2]: int(row[1]) if row[1].isdigit() else None for row in kept}
        _, size, used, origin, writing, written, _ = own
        return Found(int(size), int(used), origin, writing.strip(_NOTHING), int(written), snapshots)

    def exists(self, name: str) -> bool:
        try:
            self._zfs("list", "-H", "-o", "name", name)
        except StorageError as error:
            if _ABSENT not in str(error):
                raise
            return False
        return True

    def space(self, name: str) -> tuple[int, int]:
        """Bytes that are used in a dataset, and that are available to it."""
        used, available = map(int, self._zfs("list", "-Hp", "-o", "used,available", name).split("\t"))
        return used, available

    def written_to(self, name: str) -> Iterator[tuple[str, str]]:
        """The volumes in a dataset, and who writes to each, empty for nobody."""
        text = self._zfs("list", "-Hp", "-r", "-t", "volume", "-o", f"name,{_WRITING}", name)
        for row in text.splitlines():
            volume, writing = row.split("\t")
            yield volume, writing.strip(_NOTHING)

    def make_container(self, name: str) -> None:
        """A dataset that holds others, and those around it."""
        self._zfs("create", "-p", "-o", "mountpoint=none", name)

    def make(self, name: str, size: int) -> None:
        """An empty volume of at least this many bytes, and what is to hold it."""
        self._zfs("create", "-p", "-s", "-V", _size(size), name)

    def resize(self, name: str, size: int) -> None:
        self._zfs("set", f"volsize={_size(size)}", name)

    def grow(self, name: str, size: int) -> None:
        """Have at least this many bytes; nothing where it has, or is not there."""
        found = self.find(name)
        if found is not None and size > found.size:
            self.resize(name, size)

    def discard(self, name: str) -> Path:
        """Forget the content of a volume; its device file, which is there."""
        device = self.device(name)
        self._run(("blkdiscard", "--", str(device)), b"")
        return device

    def drop(self, name: str) -> None:
        """Remove a volume and its snapshots, if it is there."""
        if self.exists(name):
            self._zfs("destroy", "-r", name)

    def drop_empty(self, name: str) -> None:
        """Remove a dataset that holds nothing."""
        self._zfs("destroy", name)

    def snapshot(self, snapshot: str) -> None:
        self._zfs("snapshot", snapshot)

    def clone(self, snapshot: str, name: str) -> None:
        self._zfs("clone", "-p", snapshot, name)

    def rename(self, snapshot: str, new: str) -> None:
        self._zfs("rename", snapshot, new)

    def drop_snapshot(self, snapshot: str) -> None:
        """Remove it, once there is no clone of it."""
        self._zfs("destroy", "-d", snapshot)

    def roll_back(self, snapshot: str) -> None:
        """Have its volume be as it was then; it must be the newest one."""
        self._zfs("rollback", snapshot)

    def roll_back_over(self, snapshot: str) -> None:
        """The same, and the newer ones go."""
        self._zfs("rollback", "-r", snapshot)

    def note(self, name: str, writer: str) -> None:
        """Note durably who writes to a volume."""
        self._zfs("set", f"{_WRITING}={writer}", name)

    def forget(self, name: str) -> None:
        """Nobody writes to it any more."""
        self._zfs("inherit", _WRITING, name)

    def sync(self, pool: str) -> None:
        """Have all that was written be in the figures, which lag by seconds behind the data."""
        self._run(("zpool", "sync", pool), b"")

    def _zfs(self, *arguments: str) -> str:
        try:
            return self._run(("zfs", *arguments), b"").decode("ascii").strip("\n")
        except UnicodeDecodeError as error:
            raise StorageError(f"zfs {arguments[0]} answered what cannot be read") from error


def _size(size: int) -> str:
    return str(max(1, -(-check_size(size) // _UNIT)) * _UNIT)
