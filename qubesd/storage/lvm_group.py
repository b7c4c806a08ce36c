"""A volume group of LVM: its tools' commands, and what they list (``lvs(8)``, ``lvcreate(8)``)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qubesd.errors import StorageError
from qubesd.storage.commands import Run
from qubesd.storage.images import check_size

NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}", re.ASCII)
"""What LVM takes as the name of a volume group or a logical volume (``lvm(8)``)."""
DEVICES = Path("/dev")

_FIELDS = "lv_name,pool_lv,origin,lv_size,data_percent,lv_metadata_size,metadata_percent"
_SECTOR = 512
_FRESH = 30.0
"""Seconds for which figures of the volume group are given again (``spec/storage.md`` 5)."""


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """One logical volume as ``lvs`` lists it; sizes in bytes."""

    pool: str
    origin: str
    size: int
    used: int
    metadata_size: int
    metadata_used: int


class Group:
    """One volume group.

    Every method raises ``StorageError`` where a tool fails; ``devices`` is where the group's folder of device
    files lies.
    """

    def __init__(self, name: str, run: Run, devices: Path) -> None:
        self.name = name
        self._run = run
        self._devices = devices
        self._listed: tuple[float, Mapping[str, LogicalVolume]] | None = None
        self._changes = 0

    def device(self, name: str) -> Path:
        """The device file of a logical volume."""
        return self._devices / self.name / name

    def recent(self) -> Mapping[str, LogicalVolume]:
        """The volumes by name, at most half a minute ago and after the last change that was made here."""
        known = self._listed
        return known[1] if known is not None and time.monotonic() - known[0] < _FRESH else self.volumes()

    def volumes(self) -> Mapping[str, LogicalVolume]:
        """The volumes by name, as they are now."""
        asked, changes = time.monotonic(), self._changes
        text = self._run(
            ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", _FIELDS, "--", self.name],
            b"",
        )
        try:
            rows = json.loads(text)["report"][0]["lv"]
            listed = {row["lv_name"]: _read(row) for row in rows}
        except (ValueError, LookupError, TypeError) as error:
            raise StorageError(f"volume group {self.name!r}: lvs answered what cannot be read") from error
        if changes == self._changes:  # else another thread's change may not be in it
            self._listed = asked, listed
        return listed

    def make(self, thin_pool: str, name: str, size: int) -> None:
        """An empty thin volume of at least this many bytes."""
        self._change(
            "lvcreate", "--quiet", "--yes", "--type", "thin", "--thinpool", thin_pool,
            "--virtualsize", _size(size), "--name", name, "--", self.name,
        )  # fmt: skip

    def snapshot(self, name: str, copy: str) -> None:
        """A writable copy that can be used at once, which a snapshot of LVM cannot of itself."""
        self._change(
            "lvcreate", "--quiet", "--snapshot", "--setactivationskip", "n", "--activate", "y",
            "--name", copy, "--", f"{self.name}/{name}",
        )  # fmt: skip

    def activate(self, name: str) -> None:
        """Have its device file be there, whatever it says of being skipped."""
        self._change(
            "lvchange", "--quiet", "--activate", "y", "--ignoreactivationskip", "--", f"{self.name}/{name}"
        )

    def grow(self, name: str, old: int, size: int) -> None:
        """Make a volume of ``old`` bytes one of at least ``size``; nothing where it is."""
        if size > old:
            self._change("lvextend", "--quiet", "--size", _size(size), "--", f"{self.name}/{name}")

    def drop(self, *names: str) -> None:
        """Remove these, in one command."""
        if names:
            self._change("lvremove", "--quiet", "--force", "--", *(f"{self.name}/{name}" for name in names))

    def rename(self, old: str, new: str) -> None:
        self._change("lvrename", "--quiet", "--", self.name, old, new)

    def _change(self, *arguments: str) -> None:
        try:
            self._run(arguments, b"")
        finally:
            self._changes += 1
            self._listed = None


def _read(row: Mapping[str, str]) -> LogicalVolume:
    size, metadata = int(row["lv_size"]), int(row["lv_metadata_size"] or 0)
    return LogicalVolume(
        row["pool_lv"],
        row["origin"],
        size,
        _part(size, row["data_percent"]),
        metadata,
        _part(metadata, row["metadata_percent"]),
    )


def _size(size: int) -> str:
    """At least this many bytes, in the units that LVM takes, which rounds up further to an extent."""
    sectors = -(-check_size(size) // _SECTOR)
    return f"{max(1, sectors) * _SECTOR}b"


def _part(size: int, percent: str) -> int:
    return int(size * float(percent or 0) / 100)
