"""``lvm_thin``: thin logical volumes, through the tools of LVM (``spec/storage.md`` 4 and 5).

Beside ``vm-<qube>-<volume>``, the last committed state, lie the working copy ``-snap``, an import ``-import``
and the revisions ``-<epoch>-back``. A commit puts the committed volume aside before the new one takes its
name; where it was cut short between the two, the next verb or ``tidy`` goes on from there.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from qubesd.disk import sync
from qubesd.errors import NoSuchRevision, StorageError
from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage import commands, copying, refusals
from qubesd.storage.commands import Run
from qubesd.storage.images import check_size, reporting
from qubesd.storage.lvm_group import DEVICES, NAME, Group, LogicalVolume
from qubesd.storage.pool import Kind, Pool, Revision, Space, is_direct, kind

_WORKING, _IMPORT, _ASIDE = "-snap", "-import", "-aside"
_LEFT_IMPORT = re.compile(r"(vm-.+-.+)-import")


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
        self._group = Group(config.options["volume_group"], run, devices)
        self._thin = config.options["thin_pool"]
        self._clock = clock

    def open(self) -> None:
        if self._thin not in self._group.volumes():
            raise StorageError(
                f"pool {self.config.name!r}: there is no thin pool {self._group.name}/{self._thin}; "
                "make it with lvcreate --type thin-pool"
            )

    def close(self) -> None:
        pass

    def space(self) -> Space:
        thin = self._group.recent().get(self._thin)
        return (
            Space() if thin is None else Space(thin.size, thin.used, thin.metadata_size, thin.metadata_used)
        )

    def kernels(self) -> list[str]:
        return []

    def vid(self, qube: str, volume: str, template: bool) -> str:
        return f"{self._group.name}/vm-{qube}-{volume}"

    def check(self, volume: VolumeConfig) -> None:
        kind(volume)
        self._name(volume.vid)

    def verify(self, volume: VolumeConfig) -> None:
        needed = {Kind.ORIGIN: volume.vid, Kind.SNAPSHOT: volume.source}.get(kind(volume))
        if needed is not None and self._name(needed) not in self._group.volumes():
            raise StorageError(f"volume {volume.vid!r}: logical volume {needed} is missing")

    def create(self, volume: VolumeConfig) -> None:
        if kind(volume) is Kind.ORIGIN:
            name = self._name(volume.vid)
            if name in self._group.volumes():
                raise refusals.of_present(volume)
            self._group.make(self._thin, name, volume.size)

    def remove(self, volume: VolumeConfig) -> None:
        name, listed = self._name(volume.vid), self._group.volumes()
        names = [name + ending for ending in ("", _WORKING, _IMPORT, _ASIDE)]
        names += [f"{name}-{revision.id}" for revision in _revisions(name, listed)]
        self._group.drop(*(each for each in names if each in listed))

    def start(self, volume: VolumeConfig) -> None:
        listed = self._finished(volume)
        name = self._name(volume.vid)
        match kind(volume):
            case Kind.ORIGIN:
                self.verify(volume)
                if is_direct(volume) or name + _WORKING in listed:
                    self._group.activate(name if is_direct(volume) else name + _WORKING)
                else:
                    self._group.snapshot(name, name + _WORKING)
            case Kind.SNAPSHOT:
                self.verify(volume)
                if name + _WORKING in listed:
                    self._group.drop(name + _WORKING)
                source = self._name(str(volume.source))
                self._group.snapshot(source, name + _WORKING)
                self._group.grow(name + _WORKING, listed[source].size, volume.size)
            case Kind.VOLATILE:
                if name in listed:
                    self._group.drop(name)
                self._group.make(self._thin, name, volume.size)

    def stop(self, volume: VolumeConfig) -> None:
        listed = self._finished(volume)
        name = self._name(volume.vid)
        match kind(volume):
            case Kind.ORIGIN:
                if name + _WORKING in listed:
                    self._commit(volume, name + _WORKING)
            case Kind.SNAPSHOT:
                if name + _WORKING in listed:
                    self._group.drop(name + _WORKING)
            case Kind.VOLATILE:
                if name in listed:
                    self._group.drop(name)

    def is_dirty(self, volume: VolumeConfig) -> bool:
        return kind(volume) is Kind.ORIGIN and self._name(volume.vid) + _WORKING in self._group.recent()

    def is_outdated(self, volume: VolumeConfig) -> bool:
        own = self._group.recent().get(self._name(volume.vid) + _WORKING)
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
        return str(self._group.device(self._name(volume.vid) + (_WORKING if apart else "")))

    def script(self, volume: VolumeConfig) -> None:
        return None

    def revisions(self, volume: VolumeConfig) -> list[Revision]:
        return _revisions(self._name(volume.vid), self._group.recent())

    def snapshot(self, volume: VolumeConfig) -> str:
        refusals.without_revisions(volume)
        revision = self._next_revision(volume)
        name = self._name(volume.vid)
        self._group.snapshot(name, f"{name}-{revision}")
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
        self._group.snapshot(f"{name}-{revision}", name + _IMPORT)
        self._replace(volume, name + _IMPORT, name + _ASIDE)
        self._group.drop(name + _ASIDE)

    def resize(self, volume: VolumeConfig, size: int) -> None:
        check_size(size)
        name, listed = self._name(volume.vid), self._group.volumes()
        for each in (name + _WORKING, name):
            if each in listed:
                if size < listed[each].size:
                    raise refusals.of_shrinking(volume)
                self._group.grow(each, listed[each].size, size)
                return

    @contextmanager
    def export(self, volume: VolumeConfig) -> Iterator[Path]:
        refusals.of_other_kinds(volume, "exported")
        self.verify(volume)
        name = self._name(volume.vid)
        self._group.activate(name)
        with reporting(f"volume {volume.vid!r} cannot be read"):
            device = os.open(self._group.device(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            # A commit meanwhile gives the name to another volume; what is open here stays.
            yield Path(f"/proc/{os.getpid()}/fd/{device}")
        finally:
            os.close(device)

    def begin_import(self, volume: VolumeConfig, size: int) -> Path:
        name = self._ready_for_import(volume)
        self._group.make(self._thin, name, size)
        return self._group.device(name)

    def end_import(self, volume: VolumeConfig, good: bool) -> None:
        name = self._name(volume.vid) + _IMPORT
        if not good:
            self._group.drop(name)
            return
        with reporting(f"volume {volume.vid!r} cannot be replaced"):
            sync(self._group.device(name))
        self._commit(volume, name)

    def clone(self, volume: VolumeConfig, source_pool: Pool, source: VolumeConfig) -> None:
        if not isinstance(source_pool, ThinPool) or source_pool._place() != self._place():
            copying.clone(self, volume, source_pool, source)
            return
        refusals.of_other_kinds(source, "copied")
        self.verify(source)
        name = self._ready_for_import(volume)
        self._group.snapshot(self._name(source.vid), name)
        self._commit(volume, name)

    def tidy(self) -> None:
        listed = self._group.volumes()
        for left in filter(None, map(_LEFT_IMPORT.fullmatch, listed)):
            name = left[1]
            if listed[left[0]].pool != self._thin:
                continue
            if name in listed:
                self._group.drop(left[0])
            elif name + _ASIDE in listed or _revisions(name, listed):
                self._group.rename(left[0], name)  # the commit of it was cut short
        for name in self._group.volumes():
            if name.startswith("vm-") and name.endswith(_ASIDE) and name.removesuffix(_ASIDE) in listed:
                self._group.drop(name)

    def _place(self) -> tuple[str, str]:
        return self._group.name, self._thin

    def _name(self, vid: str) -> str:
        """The name of a logical volume; ``StorageError`` for a vid that is of another group, or no name."""
        group, _, name = vid.partition("/")
        if group != self._group.name or not NAME.fullmatch(name):
            raise StorageError(f"volume {vid[:64]!r}: no such name can be in this pool; mend it in qubes.xml")
        return name

    def _present(self, volume: VolumeConfig) -> LogicalVolume | None:
        """What the volume is now, as it was known at most half a minute ago."""
        name, listed = self._name(volume.vid), self._group.recent()
        return listed.get(name + _WORKING) or listed.get(name)

    def _ready_for_import(self, volume: VolumeConfig) -> str:
        """The name that the import of a volume has; ``StorageError`` where it cannot be replaced now."""
        refusals.of_other_kinds(volume, "replaced")
        name, listed = self._name(volume.vid), self._finished(volume)
        refusals.of_dirty(volume, name + _WORKING in listed)
        if name + _IMPORT in listed:
            raise refusals.of_replaced(volume)
        return name + _IMPORT

    def _finished(self, volume: VolumeConfig) -> Mapping[str, LogicalVolume]:
        """The group's volumes, after a commit that was cut short was completed."""
        name, listed = self._name(volume.vid), self._group.volumes()
        if kind(volume) is Kind.ORIGIN and name not in listed and name + _WORKING in listed:
            self._group.rename(name + _WORKING, name)
            return self._group.volumes()
        return listed

    def _next_revision(self, volume: VolumeConfig) -> str:
        last = max(
            (int(found.time) for found in _revisions(self._name(volume.vid), self._group.volumes())),
            default=0,
        )
        return f"{max(int(self._clock()), last + 1)}-back"

    def _commit(self, volume: VolumeConfig, new: str) -> None:
        """Make ``new`` the volume's state; the one before becomes a revision, if revisions are kept."""
        self._replace(volume, new, f"{self._name(volume.vid)}-{self._next_revision(volume)}")
        self._prune(volume)

    def _replace(self, volume: VolumeConfig, new: str, aside: str) -> None:
        name = self._name(volume.vid)
        self._group.rename(name, aside)
        try:
            self._group.rename(new, name)
        except StorageError:
            with suppress(StorageError):
                self._group.rename(aside, name)
            raise

    def _prune(self, volume: VolumeConfig) -> None:
        """Drop the oldest revisions; one that somebody reads goes another time."""
        name = self._name(volume.vid)
        revisions = _revisions(name, self._group.volumes())
        try:
            keep = max(0, volume.revisions_to_keep)
            self._group.drop(*(f"{name}-{old.id}" for old in revisions[: max(0, len(revisions) - keep)]))
        except StorageError as error:
            logging.getLogger(__name__).warning("an old revision of %r stays for now: %s", volume.vid, error)


def _revisions(name: str, listed: Mapping[str, LogicalVolume]) -> list[Revision]:
    """The oldest first."""
    pattern = re.compile(re.escape(name) + r"-(([1-9]\d{0,17})-back)", re.ASCII)
    found = [match for match in map(pattern.fullmatch, listed) if match]
    revisions = (Revision(match[1], int(match[2]), listed[match[0]].size) for match in found)
    return sorted(revisions, key=lambda revision: revision.time)
