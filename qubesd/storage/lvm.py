"""``lvm_thin``: thin logical volumes, through the tools of LVM (``spec/storage.md`` 4 and 5).

Beside ``vm-<qube>-<volume>``, the last committed state, lie the working copy ``-snap``, an import ``-import``
and the revisions ``-<epoch>-back``. A commit puts the committed volume aside before the new one takes its
name; where it was cut short between the two, the next verb or ``tidy`` goes on from there.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qubesd.disk import sync
from qubesd.errors import NoSuchRevision, StorageError
from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage import commands, copying, refusals
from qubesd.storage.commands import Run
from qubesd.storage.images import check_size, reporting
from qubesd.storage.pool import Kind, Pool, Revision, Space, is_direct, kind

NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}", re.ASCII)
"""What LVM takes as the name of a volume group or a logical volume (``lvm(8)``)."""
DEVICES = Path("/dev")

_WORKING, _IMPORT, _ASIDE = "-snap", "-import", "-aside"
_LEFT_IMPORT = re.compile(r"(vm-.+-.+)-import")
_FIELDS = "lv_name,pool_lv,origin,lv_size,data_percent,lv_metadata_size,metadata_percent"
_SECTOR = 512
_FRESH = 30.0
"""Seconds for which figures of the volume group are given again (``spec/storage.md`` 5)."""


@dataclass(frozen=True, slots=True)
class _Lv:
    """One logical volume as ``lvs`` lists it; sizes in bytes."""

    pool: str
    origin: str
    size: int
    used: int
    metadata_size: int
    metadata_used: int


class ThinPool:
    """One thin pool of a volume group.

    ``devices`` is where the group's folder of device files lies.
    """

    directory = None
    exports_apart = True

    def __init__(
        self,
        config: PoolConfig,
        run: Run = commands.run,
        devices: Path = DEVICES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._run = run
        self._group = config.options["volume_group"]
        self._thin = config.options["thin_pool"]
        self._devices = devices
        self._clock = clock
        self._listed: tuple[float, Mapping[str, _Lv]] | None = None
        self._changes = 0

    def open(self) -> None:
        if self._thin not in self._list():
            raise StorageError(
                f"pool {self.config.name!r}: there is no thin pool {self._group}/{self._thin}; "
                "make it with lvcreate --type thin-pool"
            )

    def close(self) -> None:
        pass

    def space(self) -> Space:
        thin = self._recent().get(self._thin)
        return (
            Space() if thin is None else Space(thin.size, thin.used, thin.metadata_size, thin.metadata_used)
        )

    def kernels(self) -> list[str]:
        return []

    def vid(self, qube: str, volume: str, template: bool) -> str:
        return f"{self._group}/vm-{qube}-{volume}"

    def check(self, volume: VolumeConfig) -> None:
        kind(volume)
        self._name(volume.vid)

    def verify(self, volume: VolumeConfig) -> None:
        needed = {Kind.ORIGIN: volume.vid, Kind.SNAPSHOT: volume.source}.get(kind(volume))
        if needed is not None and self._name(needed) not in self._list():
            raise StorageError(f"volume {volume.vid!r}: logical volume {needed} is missing")

    def create(self, volume: VolumeConfig) -> None:
        if kind(volume) is Kind.ORIGIN:
            name = self._name(volume.vid)
            if name in self._list():
                raise refusals.of_present(volume)
            self._make(name, volume.size)

    def remove(self, volume: VolumeConfig) -> None:
        name, listed = self._name(volume.vid), self._list()
        names = [name + ending for ending in ("", _WORKING, _IMPORT, _ASIDE)]
        names += [f"{name}-{revision.id}" for revision in _revisions(name, listed)]
        self._drop(*(each for each in names if each in listed))

    def start(self, volume: VolumeConfig) -> None:
        listed = self._finished(volume)
        name = self._name(volume.vid)
        match kind(volume):
            case Kind.ORIGIN:
                self.verify(volume)
                if is_direct(volume) or name + _WORKING in listed:
                    self._activate(name if is_direct(volume) else name + _WORKING)
                else:
                    self._snapshot(name, name + _WORKING)
            case Kind.SNAPSHOT:
                self.verify(volume)
                if name + _WORKING in listed:
                    self._drop(name + _WORKING)
                source = self._name(str(volume.source))
                self._snapshot(source, name + _WORKING)
                self._grow(name + _WORKING, listed[source].size, volume.size)
            case Kind.VOLATILE:
                if name in listed:
                    self._drop(name)
                self._make(name, volume.size)

    def stop(self, volume: VolumeConfig) -> None:
        listed = self._finished(volume)
        name = self._name(volume.vid)
        match kind(volume):
            case Kind.ORIGIN:
                if name + _WORKING in listed:
                    self._commit(volume, name + _WORKING)
            case Kind.SNAPSHOT:
                if name + _WORKING in listed:
                    self._drop(name + _WORKING)
            case Kind.VOLATILE:
                if name in listed:
                    self._drop(name)

    def is_dirty(self, volume: VolumeConfig) -> bool:
        return kind(volume) is Kind.ORIGIN and self._name(volume.vid) + _WORKING in self._recent()

    def is_outdated(self, volume: VolumeConfig) -> bool:
        own = self._recent().get(self._name(volume.vid) + _WORKING)
        if kind(volume) is not Kind.SNAPSHOT or own is None:
            return False
        return own.origin != self._name(str(volume.source))

    def size(self, volume: VolumeConfig) -> int:
        found = self._present(volume)
        return volume.size if found is None else found.size

    def usage(self, volume: VolumeConfig) -> int:
        found = self._present(volume)
        return 0 if found is None else found.used

    def path(self, volume: VolumeConfig) -> str:
        apart = kind(volume) is not Kind.VOLATILE and not is_direct(volume)
        return str(self._device(self._name(volume.vid) + (_WORKING if apart else "")))

    def script(self, volume: VolumeConfig) -> None:
        return None

    def revisions(self, volume: VolumeConfig) -> list[Revision]:
        return _revisions(self._name(volume.vid), self._recent())

    def snapshot(self, volume: VolumeConfig) -> str:
        refusals.without_revisions(volume)
        revision = self._next_revision(volume)
        name = self._name(volume.vid)
        self._snapshot(name, f"{name}-{revision}")
        self._prune(volume)
        return revision

    def revert(self, volume: VolumeConfig, revision: str) -> None:
        """The chosen revision stays, and what was current goes (``spec/storage.md`` 4)."""
        refusals.of_other_kinds(volume, "reverted")
        name, listed = self._name(volume.vid), self._finished(volume)
        if revision not in {found.id for found in _revisions(name, listed)}:
            raise NoSuchRevision("no such revision; list them with admin.vm.volume.ListSnapshots")
        refusals.of_dirty(volume, name + _WORKING in listed)
        if name + _IMPORT in listed:
            raise refusals.of_replaced(volume)
        self._snapshot(f"{name}-{revision}", name + _IMPORT)
        self._replace(volume, name + _IMPORT, name + _ASIDE)
        self._drop(name + _ASIDE)

    def resize(self, volume: VolumeConfig, size: int) -> None:
        check_size(size)
        name, listed = self._name(volume.vid), self._list()
        for each in (name + _WORKING, name):
            if each in listed:
                if size < listed[each].size:
                    raise refusals.of_shrinking(volume)
                self._grow(each, listed[each].size, size)
                return

    @contextmanager
    def export(self, volume: VolumeConfig) -> Iterator[Path]:
        refusals.of_other_kinds(volume, "exported")
        self.verify(volume)
        name = self._name(volume.vid)
        self._activate(name)
        with reporting(f"volume {volume.vid!r} cannot be read"):
            device = os.open(self._device(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            # A commit meanwhile gives the name to another volume; what is open here stays.
            yield Path(f"/proc/{os.getpid()}/fd/{device}")
        finally:
            os.close(device)

    def begin_import(self, volume: VolumeConfig, size: int) -> Path:
        name = self._ready_for_import(volume)
        self._make(name, size)
        return self._device(name)

    def end_import(self, volume: VolumeConfig, good: bool) -> None:
        name = self._name(volume.vid) + _IMPORT
        if not good:
            self._drop(name)
            return
        with reporting(f"volume {volume.vid!r} cannot be replaced"):
            sync(self._device(name))
        self._commit(volume, name)

    def clone(self, volume: VolumeConfig, source_pool: Pool, source: VolumeConfig) -> None:
        if not isinstance(source_pool, ThinPool) or source_pool._place() != self._place():
            copying.clone(self, volume, source_pool, source)
            return
        refusals.of_other_kinds(source, "copied")
        self.verify(source)
        name = self._ready_for_import(volume)
        self._snapshot(self._name(source.vid), name)
        self._commit(volume, name)

    def tidy(self) -> None:
        listed = self._list()
        for left in filter(None, map(_LEFT_IMPORT.fullmatch, listed)):
            name = left[1]
            if listed[left[0]].pool != self._thin:
                continue
            if name in listed:
                self._drop(left[0])
            elif name + _ASIDE in listed or _revisions(name, listed):
                self._rename(left[0], name)  # the commit of it was cut short
        for name in self._list():
            if name.startswith("vm-") and name.endswith(_ASIDE) and name.removesuffix(_ASIDE) in listed:
                self._drop(name)

    def _place(self) -> tuple[str, str]:
        return self._group, self._thin

    def _name(self, vid: str) -> str:
        """The name of a logical volume; ``StorageError`` for a vid that is of another group, or no name."""
        group, _, name = vid.partition("/")
        if group != self._group or not NAME.fullmatch(name):
            raise StorageError(f"volume {vid[:64]!r}: no such name can be in this pool; mend it in qubes.xml")
        return name

    def _device(self, name: str) -> Path:
        return self._devices / self._group / name

    def _present(self, volume: VolumeConfig) -> _Lv | None:
        """What the volume is now, as it was known at most half a minute ago."""
        name, listed = self._name(volume.vid), self._recent()
        return listed.get(name + _WORKING) or listed.get(name)

    def _recent(self) -> Mapping[str, _Lv]:
        """The group's volumes, as they were after the last change that this pool made."""
        known = self._listed
        return known[1] if known is not None and time.monotonic() - known[0] < _FRESH else self._list()

    def _list(self) -> Mapping[str, _Lv]:
        asked, changes = time.monotonic(), self._changes
        text = self._run(
            ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", _FIELDS, "--", self._group],
            b"",
        )
        try:
            rows = json.loads(text)["report"][0]["lv"]
            listed = {row["lv_name"]: _lv(row) for row in rows}
        except (ValueError, LookupError, TypeError) as error:
            raise StorageError(f"pool {self.config.name!r}: lvs answered what cannot be read") from error
        if changes == self._changes:  # else another thread's change may not be in it
            self._listed = asked, listed
        return listed

    def _change(self, *arguments: str) -> None:
        try:
            self._run(arguments, b"")
        finally:
            self._changes += 1
            self._listed = None

    def _make(self, name: str, size: int) -> None:
        self._change(
            "lvcreate", "--quiet", "--yes", "--type", "thin", "--thinpool", self._thin,
            "--virtualsize", _size(size), "--name", name, "--", self._group,
        )  # fmt: skip

    def _snapshot(self, name: str, copy: str) -> None:
        """A writable copy that can be used at once, which a snapshot of LVM cannot of itself."""
        self._change(
            "lvcreate", "--quiet", "--snapshot", "--setactivationskip", "n", "--activate", "y",
            "--name", copy, "--", f"{self._group}/{name}",
        )  # fmt: skip

    def _activate(self, name: str) -> None:
        self._change(
            "lvchange", "--quiet", "--activate", "y", "--ignoreactivationskip", "--", f"{self._group}/{name}"
        )

    def _grow(self, name: str, old: int, size: int) -> None:
        if size > old:
            self._change("lvextend", "--quiet", "--size", _size(size), "--", f"{self._group}/{name}")

    def _drop(self, *names: str) -> None:
        if names:
            self._change("lvremove", "--quiet", "--force", "--", *(f"{self._group}/{name}" for name in names))

    def _rename(self, old: str, new: str) -> None:
        self._change("lvrename", "--quiet", "--", self._group, old, new)

    def _ready_for_import(self, volume: VolumeConfig) -> str:
        """The name that the import of a volume has; ``StorageError`` where it cannot be replaced now."""
        refusals.of_other_kinds(volume, "replaced")
        name, listed = self._name(volume.vid), self._finished(volume)
        refusals.of_dirty(volume, name + _WORKING in listed)
        if name + _IMPORT in listed:
            raise refusals.of_replaced(volume)
        return name + _IMPORT

    def _finished(self, volume: VolumeConfig) -> Mapping[str, _Lv]:
        """The group's volumes, after a commit that was cut short was completed."""
        name, listed = self._name(volume.vid), self._list()
        if kind(volume) is Kind.ORIGIN and name not in listed and name + _WORKING in listed:
            self._rename(name + _WORKING, name)
            return self._list()
        return listed

    def _next_revision(self, volume: VolumeConfig) -> str:
        last = max((int(found.time) for found in _revisions(self._name(volume.vid), self._list())), default=0)
        return f"{max(int(self._clock()), last + 1)}-back"

    def _commit(self, volume: VolumeConfig, new: str) -> None:
        """Make ``new`` the volume's state; the one before becomes a revision, if revisions are kept."""
        self._replace(volume, new, f"{self._name(volume.vid)}-{self._next_revision(volume)}")
        self._prune(volume)

    def _replace(self, volume: VolumeConfig, new: str, aside: str) -> None:
        name = self._name(volume.vid)
        self._rename(name, aside)
        try:
            self._rename(new, name)
        except StorageError:
            with suppress(StorageError):
                self._rename(aside, name)
            raise

    def _prune(self, volume: VolumeConfig) -> None:
        """Drop the oldest revisions; one that somebody reads goes another time."""
        name = self._name(volume.vid)
        revisions = _revisions(name, self._list())
        try:
            keep = max(0, volume.revisions_to_keep)
            self._drop(*(f"{name}-{old.id}" for old in revisions[: max(0, len(revisions) - keep)]))
        except StorageError as error:
            logging.getLogger(__name__).warning("an old revision of %r stays for now: %s", volume.vid, error)


def _lv(row: Mapping[str, str]) -> _Lv:
    size, metadata = int(row["lv_size"]), int(row["lv_metadata_size"] or 0)
    return _Lv(
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


def _revisions(name: str, listed: Mapping[str, _Lv]) -> list[Revision]:
    """The oldest first."""
    pattern = re.compile(re.escape(name) + r"-(([1-9]\d{0,17})-back)", re.ASCII)
    found = [match for match in map(pattern.fullmatch, listed) if match]
    revisions = (Revision(match[1], int(match[2]), listed[match[0]].size) for match in found)
    return sorted(revisions, key=lambda revision: revision.time)
