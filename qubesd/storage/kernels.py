"""``linux-kernel``: the installed kernels, as volumes that no qube writes to (``spec/storage.md`` 5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qubesd.errors import BadValue, NotSupported, StorageError
from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage import images
from qubesd.storage.pool import Pool, Revision, Space


class KernelPool:
    """A directory with one folder for each kernel; what a qube has of it is the folder of its kernel.

    The vid is the kernel's version, and empty for a qube that brings its own kernel.
    """

    exports_apart = False

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self.directory = Path(config.options["dir_path"])

    def open(self) -> None:
        with images.reporting(f"pool {self.config.name!r}: {self.directory}"):
            images.make_folder(self.directory)

    def close(self) -> None:
        pass

    def space(self) -> Space:
        return Space()

    def kernels(self) -> list[str]:
        return sorted(found.parent.name for found in self.directory.glob("*/vmlinuz"))

    def vid(self, qube: str, volume: str, template: bool) -> str:
        raise StorageError(f"pool {self.config.name!r} holds kernels, not volume {volume!r} of a qube")

    def check(self, volume: VolumeConfig) -> None:
        if volume.rw or volume.save_on_stop or volume.snap_on_start:
            raise BadValue("a kernel cannot be written to")
        if volume.revisions_to_keep != 0:
            raise BadValue("no revisions of a kernel are kept")
        if volume.ephemeral is not None:
            raise BadValue("a kernel is not encrypted")
        if volume.vid:
            self._folder(volume)

    def verify(self, volume: VolumeConfig) -> None:
        if volume.vid and not (self._folder(volume) / "vmlinuz").exists():
            raise StorageError(f"kernel {volume.vid!r} is not in pool {self.config.name!r}")

    def create(self, volume: VolumeConfig) -> None:
        pass

    def remove(self, volume: VolumeConfig) -> None:
        pass

    def start(self, volume: VolumeConfig) -> None:
        self.verify(volume)

    def stop(self, volume: VolumeConfig) -> None:
        pass

    def is_dirty(self, volume: VolumeConfig) -> bool:
        return False

    def is_outdated(self, volume: VolumeConfig) -> bool:
        return False

    def size(self, volume: VolumeConfig) -> int:
        modules = self._modules(volume)
        return 0 if modules is None else modules.stat().st_size

    def usage(self, volume: VolumeConfig) -> int:
        modules = self._modules(volume)
        return 0 if modules is None else images.used(modules)

    def path(self, volume: VolumeConfig) -> str | None:
        modules = self._modules(volume)
        return None if modules is None else str(modules)

    def script(self, volume: VolumeConfig) -> None:
        return None

    def revisions(self, volume: VolumeConfig) -> list[Revision]:
        return []

    def snapshot(self, volume: VolumeConfig) -> str:
        raise self._fixed()

    def revert(self, volume: VolumeConfig, revision: str) -> None:
        raise self._fixed()

    def resize(self, volume: VolumeConfig, size: int) -> None:
        raise self._fixed()

    @contextmanager
    def export(self, volume: VolumeConfig) -> Iterator[Path]:
        modules = self._modules(volume)
        if modules is None:
            raise StorageError(f"kernel {volume.vid!r} has no modules.img to read")
        yield modules

    def begin_import(self, volume: VolumeConfig, size: int) -> Path:
        raise self._fixed()

    def end_import(self, volume: VolumeConfig, good: bool) -> None:
        raise self._fixed()

    def clone(self, volume: VolumeConfig, source_pool: Pool, source: VolumeConfig) -> None:
        """Nothing, from another kernel: a qube's kernel is changed by its property."""
        if not isinstance(source_pool, KernelPool):
            raise self._fixed()

    def tidy(self) -> None:
        pass

    def _fixed(self) -> NotSupported:
        return NotSupported(
            f"pool {self.config.name!r} holds kernels, which are changed by installing others"
        )

    def _folder(self, volume: VolumeConfig) -> Path:
        return images.below(self.directory, volume.vid)

    def _modules(self, volume: VolumeConfig) -> Path | None:
        modules = self._folder(volume) / "modules.img" if volume.vid else None
        return modules if modules is not None and modules.exists() else None
