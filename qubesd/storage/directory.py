"""What the drivers that keep images below a directory have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage import images, refusals
from qubesd.storage.images import beside, reporting
from qubesd.storage.pool import Space, kind

FOLDERS = ("appvms", "vm-templates")
IMPORT = "-import.img"


class DirectoryPool(ABC):
    """The part of ``Pool`` that does not depend on how an image is copied."""

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self.directory = Path(config.options["dir_path"])

    def open(self) -> None:
        with reporting(f"pool {self.config.name!r}: {self.directory}"):
            for folder in FOLDERS:
                images.make_folder(self.directory / folder)

    def close(self) -> None:
        return

    def space(self) -> Space:
        with reporting(f"pool {self.config.name!r}"):
            return Space(*images.space(self.directory))

    def kernels(self) -> list[str]:
        return []

    def vid(self, qube: str, volume: str, template: bool) -> str:
        return f"{FOLDERS[template]}/{qube}/{volume}"

    def check(self, volume: VolumeConfig) -> None:
        kind(volume)
        images.below(self.directory, volume.vid)

    def tidy(self) -> None:
        with reporting(f"pool {self.config.name!r}: cannot be tidied up"):
            for folder in FOLDERS:
                for place, _, names in os.walk(self.directory / folder):
                    left = [name for name in names if name.endswith((images.UNFINISHED, IMPORT))]
                    images.remove(*(Path(place) / name for name in left))

    @abstractmethod
    def is_dirty(self, volume: VolumeConfig) -> bool: ...

    @abstractmethod
    def _take_over(self, volume: VolumeConfig, image: Path) -> None:
        """Make the image the volume's state, under its name."""

    exports_apart: ClassVar[bool]

    imports_beside_writes: ClassVar[bool] = False
    """Whether new content can come while a guest writes to a copy. It is then the state before what the guest
    wrote, so it is refused where no such state is kept (decision 0015)."""

    def begin_import(self, volume: VolumeConfig, size: int) -> Path:
        refusals.of_other_kinds(volume, "replaced")
        if not (self.imports_beside_writes and volume.revisions_to_keep > 0):
            refusals.of_dirty(volume, self.is_dirty(volume))
        with self._doing(volume, "cannot be replaced"):
            place = self._file(volume.vid, IMPORT)
            if place.exists():
                raise refusals.of_replaced(volume)
            images.make_folder(place.parent)
            images.make_empty(place, size)
            return place

    def end_import(self, volume: VolumeConfig, good: bool) -> None:
        with self._doing(volume, "cannot be replaced"):
            image = self._file(volume.vid, IMPORT)
            try:
                if good:
                    self._take_over(volume, image)
            finally:
                images.remove(image)

    def _file(self, vid: str, ending: str) -> Path:
        return beside(images.below(self.directory, vid), ending)

    def _check_new_size(self, volume: VolumeConfig, image: Path | None, size: int) -> None:
        """Refuse to shrink an image that is in use or holds data behind its new end (decision 0016)."""
        images.check_size(size)
        if image is None or size >= image.stat().st_size:
            return
        if self.is_dirty(volume) or images.holds_data(image, size):
            raise refusals.of_shrinking(volume)

    def _doing(self, volume: VolumeConfig, what: str) -> AbstractContextManager[None]:
        return reporting(f"{self.directory / volume.vid}: the volume {what}")
