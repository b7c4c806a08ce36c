"""``zfs``: volumes of ZFS, through its tools (``spec/storage.md`` 4 and 5).

A guest and an import write into the volume itself. What was last committed is always the newest snapshot of
ours: ``qubes:<cause>:<time>`` where it is a revision as well, ``committed:<time>`` where it is none. While
something is written the property ``org.qubes:writing`` says by whom, so what an import left that was cut
short can be rolled back, and what a guest wrote can be kept.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qubesd.disk import sync
from qubesd.errors import NoSuchRevision, StorageError
from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage import commands, copying, refusals
from qubesd.storage.commands import Run
from qubesd.storage.images import check_size, reporting
from qubesd.storage.pool import Kind, Pool, Revision, Space, is_direct, kind
from qubesd.storage.zfs_datasets import DEVICES, NAME, Datasets, Found

_GUEST, _DATA, _VOLUME = "guest", "import-data", "import-volume"
_REVISION = re.compile(r"qubes:[a-z-]{1,32}:(\d{1,12}\.\d{6})", re.ASCII)
_COMMITTED = re.compile(r"committed:(\d{1,12}\.\d{6})", re.ASCII)
_EXPORT = ".export-"


class ZfsPool:
    """One dataset that holds a dataset for each qube, which holds its volumes.

    ``devices`` is where the volumes' device files lie.
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
        self._datasets = Datasets(run, devices)
        self._container = config.options["container"]
        self._forensics = config.options.get("snap_on_start_forensics") == "True"
        self._clock = clock

    def open(self) -> None:
        if not self._datasets.exists(self._container):
            self._datasets.make_container(self._container)

    def close(self) -> None:
        pass

    def space(self) -> Space:
        used, available = self._datasets.space(self._container)
        return Space(used + available, used)

    def kernels(self) -> list[str]:
        return []

    def vid(self, qube: str, volume: str, template: bool) -> str:
        return f"{self._container}/{qube}/{volume}"

    def check(self, volume: VolumeConfig) -> None:
        kind(volume)
        self._name(volume.vid)

    def verify(self, volume: VolumeConfig) -> None:
        needed = {Kind.ORIGIN: volume.vid, Kind.SNAPSHOT: volume.source}.get(kind(volume))
        if needed is not None:
            self._committed(needed)

    def create(self, volume: VolumeConfig) -> None:
        if kind(volume) is Kind.ORIGIN:
            name = self._name(volume.vid)
            if self._datasets.exists(name):
                raise refusals.of_present(volume)
            self._datasets.make(name, volume.size)
            self._snapshot(name, _cause(volume, "after-create"))

    def remove(self, volume: VolumeConfig) -> None:
        name = self._name(volume.vid)
        self._datasets.drop(name)
        qube = name.rpartition("/")[0]
        # With the last volume of a qube goes what held them; while there are others ZFS refuses.
        if qube != self._container:
            with suppress(StorageError):
                self._datasets.drop_empty(qube)

    def start(self, volume: VolumeConfig) -> None:
        name = self._name(volume.vid)
        match kind(volume):
            case Kind.ORIGIN:
                self._undo_import(volume)
                if not is_direct(volume):
                    self._begin_writing(volume, _GUEST, "qubes:before-start")
            case Kind.SNAPSHOT:
                committed = self._committed(str(volume.source))
                self._datasets.drop(name)
                self._datasets.clone(committed, name)
                self._datasets.grow(name, volume.size)
            case Kind.VOLATILE:
                self._datasets.drop(name)
                self._datasets.make(name, volume.size)

    def stop(self, volume: VolumeConfig) -> None:
        match kind(volume):
            case Kind.ORIGIN:
                self._undo_import(volume)
                found = self._written(volume)
                if found is not None and (found.writing == _GUEST or (is_direct(volume) and found.written)):
                    self._end_writing(volume, found, "committed")
            case Kind.SNAPSHOT:
                if not self._forensics:
                    self._datasets.drop(self._name(volume.vid))
            case Kind.VOLATILE:
                self._datasets.drop(self._name(volume.vid))

    def is_dirty(self, volume: VolumeConfig) -> bool:
        found = self._find(volume.vid) if kind(volume) is Kind.ORIGIN else None
        return found is not None and found.writing == _GUEST

    def is_outdated(self, volume: VolumeConfig) -> bool:
        own = self._find(volume.vid) if kind(volume) is Kind.SNAPSHOT else None
        return own is not None and own.origin != self._committed(str(volume.source))

    def size(self, volume: VolumeConfig) -> int:
        found = self._find(volume.vid)
        return volume.size if found is None else found.size

    def usage(self, volume: VolumeConfig) -> int:
        found = self._find(volume.vid)
        return 0 if found is None else found.used

    def path(self, volume: VolumeConfig) -> str:
        return str(self._datasets.path(self._name(volume.vid)))

    def script(self, volume: VolumeConfig) -> None:
        return None

    def revisions(self, volume: VolumeConfig) -> list[Revision]:
        found = self._find(volume.vid)
        return [] if found is None else _revisions(found)

    def snapshot(self, volume: VolumeConfig) -> str:
        refusals.without_revisions(volume)
        name = self._committed(volume.vid)
        kept = self._keep(name, "qubes:on-request")
        self._prune(volume)
        return kept.partition("@")[2]

    def revert(self, volume: VolumeConfig, revision: str) -> None:
        """The revisions made after the chosen one go, and so does it itself (``spec/storage.md`` 4)."""
        refusals.of_other_kinds(volume, "reverted")
        found = self._find(volume.vid)
        if found is None or revision not in {known.id for known in _revisions(found)}:
            raise NoSuchRevision("no such revision; list them with admin.vm.volume.ListSnapshots")
        self._refuse_written(volume, found)
        chosen = f"{self._name(volume.vid)}@{revision}"
        self._datasets.roll_back_over(chosen)
        self._datasets.rename(chosen, self._new(chosen.partition("@")[0], "committed"))

    def resize(self, volume: VolumeConfig, size: int) -> None:
        found = self._find(volume.vid)
        if found is not None and check_size(size) < found.size:
            raise refusals.of_shrinking(volume)
        if found is not None:
            self._datasets.grow(self._name(volume.vid), size)
            if kind(volume) is Kind.ORIGIN and not found.writing:
                # The size is part of what is committed: a rollback would bring back the old one.
                self._snapshot(self._name(volume.vid), "committed")
                self._prune(volume)

    @contextmanager
    def export(self, volume: VolumeConfig) -> Iterator[Path]:
        refusals.of_other_kinds(volume, "exported")
        copy = f"{self._name(volume.vid)}{_EXPORT}{uuid.uuid4().hex}"
        self._datasets.clone(self._committed(volume.vid), copy)
        try:
            yield self._datasets.device(copy)
        finally:
            self._datasets.drop(copy)

    def begin_import(self, volume: VolumeConfig, size: int) -> Path:
        return self._begin_import(volume, size, _DATA)

    def end_import(self, volume: VolumeConfig, good: bool) -> None:
        found = self._present(volume)
        if found.writing not in (_DATA, _VOLUME):
            raise StorageError(f"volume {volume.vid!r}: is not being replaced")
        if not good:
            self._undo_import(volume)
            return
        with reporting(f"volume {volume.vid!r} cannot be replaced"):
            sync(self._datasets.device(self._name(volume.vid)))
        self._end_writing(volume, found, _cause(volume, f"after-{found.writing}"))

    def clone(self, volume: VolumeConfig, source_pool: Pool, source: VolumeConfig) -> None:
        copying.clone(
            self, volume, source_pool, source, lambda size: self._begin_import(volume, size, _VOLUME)
        )

    def tidy(self) -> None:
        """Drop what an export left, and undo imports that were cut short."""
        for name, writing in self._datasets.written_to(self._container):
            if _EXPORT in name.rpartition("/")[2]:
                self._datasets.drop(name)
            elif writing in (_DATA, _VOLUME):
                self._roll_back(name)

    def _begin_import(self, volume: VolumeConfig, size: int, writer: str) -> Path:
        refusals.of_other_kinds(volume, "replaced")
        self._refuse_written(volume, self._present(volume))
        name = self._name(volume.vid)
        self._begin_writing(volume, writer, "qubes:before-import")
        try:
            device = self._datasets.discard(name)
            self._datasets.resize(name, size)
        except StorageError:
            self._roll_back(name)
            raise
        return device

    def _refuse_written(self, volume: VolumeConfig, found: Found) -> None:
        if found.writing in (_DATA, _VOLUME):
            raise refusals.of_replaced(volume)
        refusals.of_dirty(volume, found.writing == _GUEST)

    def _begin_writing(self, volume: VolumeConfig, writer: str, cause: str) -> None:
        """Note who writes, over a snapshot of what is committed."""
        if self._present(volume).writing:
            return  # what an unclean stop left
        committed = self._committed(volume.vid)
        if volume.revisions_to_keep > 0:
            self._keep(committed, cause)
        self._datasets.note(self._name(volume.vid), writer)
        self._prune(volume)

    def _end_writing(self, volume: VolumeConfig, found: Found, cause: str) -> None:
        """Commit what was written. Cut short after the snapshot, it is made once more."""
        name = self._name(volume.vid)
        if found.written or found.writing in (_DATA, _VOLUME):
            self._snapshot(name, cause)
        self._datasets.forget(name)
        self._prune(volume)

    def _written(self, volume: VolumeConfig) -> Found | None:
        """The volume, with all in its figures that was written: those lag by seconds behind the data."""
        found = self._find(volume.vid)
        if found is None or not (found.writing == _GUEST or is_direct(volume)):
            return found
        self._datasets.sync(self._container.partition("/")[0])
        return self._find(volume.vid)

    def _undo_import(self, volume: VolumeConfig) -> None:
        found = self._find(volume.vid)
        if found is not None and found.writing in (_DATA, _VOLUME):
            self._roll_back(self._name(volume.vid))

    def _roll_back(self, name: str) -> None:
        self._datasets.roll_back(self._committed(name))
        self._datasets.forget(name)

    def _keep(self, snapshot: str, cause: str) -> str:
        """Have what is committed be a revision as well; its name."""
        name, _, short = snapshot.partition("@")
        if _REVISION.fullmatch(short):
            return snapshot
        kept = self._new(name, cause)
        self._datasets.rename(snapshot, kept)
        return kept

    def _prune(self, volume: VolumeConfig) -> None:
        """Drop the oldest revisions, and what was committed before; a clone keeps its own until it goes."""
        found = self._present(volume)
        older = [short for short in found.snapshots if _COMMITTED.fullmatch(short)]
        revisions = [revision.id for revision in _revisions(found)]
        surplus = max(0, len(revisions) - max(0, volume.revisions_to_keep))
        for short in older + revisions[:surplus]:
            if short != _newest(found):
                self._datasets.drop_snapshot(f"{self._name(volume.vid)}@{short}")

    def _present(self, volume: VolumeConfig) -> Found:
        found = self._find(volume.vid)
        if found is None:
            raise StorageError(f"volume {volume.vid!r}: is missing from its pool")
        return found

    def _committed(self, vid: str) -> str:
        """The full name of the newest snapshot; ``StorageError`` where there is none."""
        found = self._find(vid)
        if found is None or _newest(found) is None:
            raise StorageError(f"volume {vid!r}: is missing from its pool, or has no committed state")
        return f"{vid}@{_newest(found)}"

    def _name(self, vid: str) -> str:
        """The name of a volume's dataset; ``StorageError`` for a vid that is elsewhere, or no name."""
        if not vid.startswith(self._container + "/") or not NAME.fullmatch(vid):
            raise StorageError(f"volume {vid[:64]!r}: no such name can be in this pool; mend it in qubes.xml")
        return vid

    def _find(self, vid: str) -> Found | None:
        return self._datasets.find(self._name(vid))

    def _snapshot(self, name: str, cause: str) -> None:
        self._datasets.snapshot(self._new(name, cause))

    def _new(self, name: str, cause: str) -> str:
        return f"{name}@{cause}:{self._clock():.6f}"


def _newest(found: Found) -> str | None:
    """What was committed last; ``None`` for a volume that was not made by this driver."""
    return next((name for name in reversed(found.snapshots) if _time(name) is not None), None)


def _cause(volume: VolumeConfig, cause: str) -> str:
    """How the name of a snapshot begins that is a revision, where the volume keeps any."""
    return f"qubes:{cause}" if volume.revisions_to_keep > 0 else "committed"


def _time(short: str) -> float | None:
    """Seconds since the epoch in the name of a snapshot of ours; ``None`` for another's."""
    match = _REVISION.fullmatch(short) or _COMMITTED.fullmatch(short)
    return float(match[1]) if match else None


def _revisions(found: Found) -> list[Revision]:
    return [
        Revision(short, _time(short) or 0.0, size)
        for short, size in found.snapshots.items()
        if _REVISION.fullmatch(short)
    ]
