"""``file-reflink``: images as files, copied by sharing extents (``spec/storage.md`` 4 and 5).

Beside ``<vid>.img``, the last committed state, lie the working copy ``-dirty.img``, an import ``-import.img``
and the revisions ``.img.<n>@<time>Z``. A running snapshot's own ``.img`` is one more name of the image that
it was taken from, which tells whether the source has moved on.
"""

from __future__ import annotations

import os
import re
import time
from calendar import timegm
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from qubesd.disk import sync
from qubesd.errors import NoSuchRevision, StorageError
from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage import copying, images, refusals
from qubesd.storage.directory import IMPORT, DirectoryPool
from qubesd.storage.images import beside, reporting
from qubesd.storage.pool import Kind, Pool, Revision, is_direct, kind

_CLEAN, _DIRTY, _PRECACHE = ".img", "-dirty.img", "-precache.img"
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class ReflinkPool(DirectoryPool):
    """One directory of images.

    ``must_share`` refuses a file system on which each start of a qube would copy all its data; without it
    such a pool works, slowly.
    """

    exports_apart = True
    imports_beside_writes = True

    def __init__(
        self, config: PoolConfig, must_share: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(config)
        self._must_share = must_share
        self._clock = clock

    def open(self) -> None:
        super().open()
        with reporting(f"pool {self.config.name!r}: {self.directory}"):
            if self._must_share and not self._shares():
                raise StorageError(
                    f"pool {self.config.name!r}: the file system of {self.directory} cannot share extents; "
                    "use XFS or btrfs, or set setup_check=False and accept full copies"
                )

    def _shares(self) -> bool:
        with TemporaryFile(dir=self.directory) as source, TemporaryFile(dir=self.directory) as target:
            source.write(bytes(1 << 16))
            source.flush()
            return copying.share(source.fileno(), target.fileno())

    def verify(self, volume: VolumeConfig) -> None:
        needed = {Kind.ORIGIN: volume.vid, Kind.SNAPSHOT: volume.source}.get(kind(volume))
        if needed is not None and not self._file(needed, _CLEAN).exists():
            raise StorageError(f"volume {volume.vid!r}: image {needed}{_CLEAN} is missing from its pool")

    def create(self, volume: VolumeConfig) -> None:
        with self._doing(volume, "cannot be created"):
            clean = self._file(volume.vid, _CLEAN)
            if kind(volume) is Kind.ORIGIN:
                if clean.exists():
                    raise refusals.of_present(volume)
                images.make_folder(clean.parent)
                images.make_empty(clean, volume.size)

    def remove(self, volume: VolumeConfig) -> None:
        with self._doing(volume, "cannot be removed"):
            base = images.below(self.directory, volume.vid)
            if not base.parent.is_dir():
                return
            names = [beside(base, ending) for ending in (_CLEAN, _DIRTY, _PRECACHE, IMPORT)]
            names += [self._revision_file(volume, revision) for revision in self.revisions(volume)]
            images.remove_lastingly(*names, *(beside(name, images.UNFINISHED) for name in names))

    def start(self, volume: VolumeConfig) -> None:
        with self._doing(volume, "cannot be started"):
            clean, dirty = self._file(volume.vid, _CLEAN), self._file(volume.vid, _DIRTY)
            match kind(volume):
                case Kind.ORIGIN:
                    self.verify(volume)
                    if not is_direct(volume) and not dirty.exists():
                        images.make(dirty, lambda file: copying.copy(clean, file))
                case Kind.SNAPSHOT:
                    self.verify(volume)
                    images.make_folder(clean.parent)
                    images.remove(dirty)
                    images.link(self._file(str(volume.source), _CLEAN), clean)
                    images.make(dirty, lambda file: _copy_at_least(clean, file, volume.size))
                case Kind.VOLATILE:
                    images.make_folder(dirty.parent)
                    images.make_empty(dirty, volume.size)

    def stop(self, volume: VolumeConfig) -> None:
        with self._doing(volume, "cannot be stopped"):
            dirty = self._file(volume.vid, _DIRTY)
            match kind(volume):
                case Kind.ORIGIN:
                    if dirty.exists():
                        self._take_over(volume, dirty)
                case Kind.SNAPSHOT:
                    images.remove(dirty, self._file(volume.vid, _CLEAN))
                case Kind.VOLATILE:
                    images.remove(dirty)

    def is_dirty(self, volume: VolumeConfig) -> bool:
        return kind(volume) is Kind.ORIGIN and self._file(volume.vid, _DIRTY).exists()

    def is_outdated(self, volume: VolumeConfig) -> bool:
        own = self._file(volume.vid, _CLEAN)
        if kind(volume) is not Kind.SNAPSHOT or not own.exists():
            return False
        source = self._file(str(volume.source), _CLEAN)
        with self._doing(volume, "cannot be compared with its source"):
            return source.exists() and not source.samefile(own)

    def size(self, volume: VolumeConfig) -> int:
        with self._doing(volume, "cannot be looked at"):
            file = self._present(volume)
            return volume.size if file is None else file.stat().st_size

    def usage(self, volume: VolumeConfig) -> int:
        with self._doing(volume, "cannot be looked at"):
            file = self._present(volume)
            return 0 if file is None else images.used(file)

    def path(self, volume: VolumeConfig) -> str:
        return str(self._file(volume.vid, _CLEAN if is_direct(volume) else _DIRTY))

    def script(self, volume: VolumeConfig) -> None:
        return None

    def revisions(self, volume: VolumeConfig) -> list[Revision]:
        base = images.below(self.directory, volume.vid)
        pattern = re.compile(re.escape(base.name + _CLEAN) + r"\.([1-9]\d{0,17})@([-\d]{10}T[:\d]{8}Z)")
        with self._doing(volume, "has a folder that cannot be read"):
            names = _names(base.parent)
        found = [match for match in map(pattern.fullmatch, names) if match]
        revisions = [
            Revision(match[1], timegm(time.strptime(match[2], _TIME)), _size(base.with_name(match[0])))
            for match in found
        ]
        return sorted(revisions, key=lambda revision: (revision.time, int(revision.id)))

    def snapshot(self, volume: VolumeConfig) -> str:
        refusals.without_revisions(volume)
        with self._doing(volume, "cannot be snapshot"):
            clean = self._file(volume.vid, _CLEAN)
            revision = self._next_revision(volume)
            images.make(self._revision_file(volume, revision), lambda file: copying.copy(clean, file))
            self._prune(volume)
        return revision.id

    def revert(self, volume: VolumeConfig, revision: str) -> None:
        refusals.of_other_kinds(volume, "reverted")
        chosen = next((found for found in self.revisions(volume) if found.id == revision), None)
        if chosen is None:
            raise NoSuchRevision("no such revision; list them with admin.vm.volume.ListSnapshots")
        refusals.of_dirty(volume, self.is_dirty(volume))
        with self._doing(volume, "cannot be reverted"):
            self._take_over(volume, self._revision_file(volume, chosen))

    def resize(self, volume: VolumeConfig, size: int) -> None:
        with self._doing(volume, "cannot be resized"):
            file = self._present(volume)
            self._check_new_size(volume, file, size)
            if file is not None and file.stat().st_size != size:
                images.resize(file, size)

    @contextmanager
    def export(self, volume: VolumeConfig) -> Iterator[Path]:
        refusals.of_other_kinds(volume, "exported")
        with self._doing(volume, "cannot be read"):
            image = os.open(self._file(volume.vid, _CLEAN), os.O_RDONLY | os.O_CLOEXEC)
        try:
            # A commit meanwhile gives the name to another image; what is open here stays.
            yield Path(f"/proc/{os.getpid()}/fd/{image}")
        finally:
            os.close(image)

    def clone(self, volume: VolumeConfig, source_pool: Pool, source: VolumeConfig) -> None:
        copying.clone(self, volume, source_pool, source)

    def _present(self, volume: VolumeConfig) -> Path | None:
        """The image that holds what the volume is now; ``None`` where it has none now."""
        files = (self._file(volume.vid, ending) for ending in (_DIRTY, _CLEAN))
        return next((file for file in files if file.exists()), None)

    def _revision_file(self, volume: VolumeConfig, revision: Revision) -> Path:
        when = time.strftime(_TIME, time.gmtime(revision.time))
        return self._file(volume.vid, f"{_CLEAN}.{revision.id}@{when}")

    def _next_revision(self, volume: VolumeConfig) -> Revision:
        number = max((int(revision.id) for revision in self.revisions(volume)), default=0) + 1
        return Revision(str(number), self._clock())

    def _take_over(self, volume: VolumeConfig, image: Path) -> None:
        """Make the image the volume's state; the one before becomes a revision, if revisions are kept."""
        clean = self._file(volume.vid, _CLEAN)
        sync(image)
        # Cut short after the link, this was done already.
        kept = any(self._revision_file(volume, old).samefile(clean) for old in self.revisions(volume))
        if volume.revisions_to_keep > 0 and clean.exists() and not kept:
            images.link(clean, self._revision_file(volume, self._next_revision(volume)))
        images.rename(image, clean)
        images.remove(self._file(volume.vid, _PRECACHE))
        self._prune(volume)

    def _prune(self, volume: VolumeConfig) -> None:
        revisions = self.revisions(volume)
        for old in revisions[: max(0, len(revisions) - max(0, volume.revisions_to_keep))]:
            images.remove(self._revision_file(volume, old))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _size(file: Path) -> int | None:
    """``None`` where it has gone since it was listed."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def _copy_at_least(source: Path, target: Path, size: int) -> None:
    """A copy that is not smaller than ``size``: a disposable's own volume may be larger than its source."""
    copying.copy(source, target)
    if target.stat().st_size < size:
        os.truncate(target, size)
