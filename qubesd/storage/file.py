"""``file``: images as plain files, kept apart by the device mapper (``spec/storage.md`` 5).

What a guest writes to an origin goes straight into ``<vid>.img``, and what was there before into
``<vid>-cow.img``, from which its snapshots go on to see the old state; a snapshot's own writes go into its
own ``-cow.img``. The devices over these files are made by the hypervisor's hotplug scripts, to which ``path``
names the files one after the other; this driver sees to the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qubesd.disk import sync
from qubesd.errors import BadValue, NotSupported, StorageError
from qubesd.model.state import VolumeConfig
from qubesd.storage import copying, images, refusals
from qubesd.storage.directory import IMPORT, DirectoryPool
from qubesd.storage.pool import Kind, Pool, Revision, is_direct, kind

_IMAGE, _COW, _KEPT = ".img", "-cow.img", "-cow.img.old"
MOST_REVISIONS = 1


class FilePool(DirectoryPool):
    """One directory of images and of what was or is written over them."""

    exports_apart = False

    def check(self, volume: VolumeConfig) -> None:
        super().check(volume)
        if volume.revisions_to_keep > MOST_REVISIONS:
            raise BadValue(f"driver 'file' keeps at most {MOST_REVISIONS} revision")

    def verify(self, volume: VolumeConfig) -> None:
        needed = {Kind.ORIGIN: volume.vid, Kind.SNAPSHOT: volume.source}.get(kind(volume))
        if needed is not None and not self._file(needed, _IMAGE).exists():
            raise StorageError(f"volume {volume.vid!r}: image {needed}{_IMAGE} is missing from its pool")

    def create(self, volume: VolumeConfig) -> None:
        with self._doing(volume, "cannot be created"):
            image = self._file(volume.vid, _IMAGE)
            if kind(volume) is Kind.ORIGIN:
                if image.exists():
                    raise refusals.of_present(volume)
                images.make_folder(image.parent)
                images.make_empty(image, volume.size)

    def remove(self, volume: VolumeConfig) -> None:
        with self._doing(volume, "cannot be removed"):
            names = [self._file(volume.vid, ending) for ending in (_IMAGE, _COW, _KEPT, IMPORT)]
            if names[0].parent.is_dir():
                images.remove_lastingly(*names, *(images.beside(name, images.UNFINISHED) for name in names))

    def start(self, volume: VolumeConfig) -> None:
        with self._doing(volume, "cannot be started"):
            image, cow = self._file(volume.vid, _IMAGE), self._file(volume.vid, _COW)
            self.verify(volume)
            images.make_folder(image.parent)
            match kind(volume):
                case Kind.ORIGIN:
                    if not is_direct(volume) and not cow.exists():
                        images.make_empty(cow, image.stat().st_size)
                case Kind.SNAPSHOT:
                    source = self._file(str(volume.source), _IMAGE)
                    images.make_empty(cow, source.stat().st_size)
                case Kind.VOLATILE:
                    images.make_empty(image, volume.size)

    def stop(self, volume: VolumeConfig) -> None:
        with self._doing(volume, "cannot be stopped"):
            cow = self._file(volume.vid, _COW)
            match kind(volume):
                case Kind.ORIGIN:
                    if cow.exists():
                        sync(self._file(volume.vid, _IMAGE))
                        images.rename(cow, self._file(volume.vid, _KEPT))
                    if volume.revisions_to_keep < 1:
                        images.remove(self._file(volume.vid, _KEPT))
                case Kind.SNAPSHOT:
                    images.remove(cow)
                case Kind.VOLATILE:
                    images.remove(self._file(volume.vid, _IMAGE))

    def is_dirty(self, volume: VolumeConfig) -> bool:
        return kind(volume) is Kind.ORIGIN and self._file(volume.vid, _COW).exists()

    def is_outdated(self, volume: VolumeConfig) -> bool:
        return False

    def size(self, volume: VolumeConfig) -> int:
        with self._doing(volume, "cannot be looked at"):
            image = self._file(volume.vid, _IMAGE)
            return image.stat().st_size if image.exists() else volume.size

    def usage(self, volume: VolumeConfig) -> int:
        with self._doing(volume, "cannot be looked at"):
            return sum(images.used(self._file(volume.vid, ending)) for ending in (_IMAGE, _COW))

    def path(self, volume: VolumeConfig) -> str:
        image, cow = self._file(volume.vid, _IMAGE), self._file(volume.vid, _COW)
        match kind(volume):
            case Kind.SNAPSHOT:
                source = str(volume.source)
                return f"{self._file(source, _IMAGE)}:{self._file(source, _COW)}:{cow}"
            case Kind.ORIGIN if not is_direct(volume):
                return f"{image}:{cow}"
            case _:
                return str(image)

    def script(self, volume: VolumeConfig) -> str | None:
        if kind(volume) is Kind.SNAPSHOT:
            return "block-snapshot"
        return "block-origin" if kind(volume) is Kind.ORIGIN and not is_direct(volume) else None

    def revisions(self, volume: VolumeConfig) -> list[Revision]:
        kept = self._file(volume.vid, _KEPT)
        if kind(volume) is not Kind.ORIGIN or not kept.exists():
            return []
        with self._doing(volume, "cannot be looked at"):
            return [Revision("old", int(kept.stat().st_ctime))]

    def snapshot(self, volume: VolumeConfig) -> str:
        raise NotSupported("driver 'file' makes revisions only when a qube shuts down")

    def revert(self, volume: VolumeConfig, revision: str) -> None:
        raise NotSupported("driver 'file' cannot go back to a revision; use a pool of driver 'file-reflink'")

    def resize(self, volume: VolumeConfig, size: int) -> None:
        if kind(volume) is Kind.SNAPSHOT:
            raise StorageError(f"volume {volume.vid!r}: driver 'file' cannot resize a snapshot")
        with self._doing(volume, "cannot be resized"):
            image = self._file(volume.vid, _IMAGE)
            self._check_new_size(volume, image if image.exists() else None, size)
            if image.exists():
                images.resize(image, size)

    @contextmanager
    def export(self, volume: VolumeConfig) -> Iterator[Path]:
        refusals.of_other_kinds(volume, "exported")
        refusals.of_dirty(volume, self.is_dirty(volume))
        yield self._file(volume.vid, _IMAGE)

    def clone(self, volume: VolumeConfig, source_pool: Pool, source: VolumeConfig) -> None:
        copying.clone(self, volume, source_pool, source)

    def _take_over(self, volume: VolumeConfig, image: Path) -> None:
        sync(image)
        # What was kept is a difference to the image that goes now.
        images.remove(self._file(volume.vid, _KEPT))
        images.rename(image, self._file(volume.vid, _IMAGE))
