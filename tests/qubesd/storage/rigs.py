"""One pool of each driver that keeps revisions, over files in a directory of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage.callback import CallbackPool, Settings
from qubesd.storage.commands import run
from qubesd.storage.lvm import ThinPool
from qubesd.storage.pool import Pool
from qubesd.storage.reflink import ReflinkPool
from qubesd.storage.zfs import ZfsPool
from tests.qubesd.storage.tools import EXTENT, Lvm, Zfs

SIZE = 2 * EXTENT


class Rig:
    """A pool and, where it needs them, the tools below it, which outlive the daemon that made the pool."""

    def __init__(self, driver: str, place: Path) -> None:
        self.driver = driver
        self.tools = {"lvm_thin": Lvm, "zfs": Zfs}.get(driver, lambda _: None)(place / "dev")
        self._make: Callable[[], Pool] = {
            "file-reflink": lambda: _reflink(place),
            "lvm_thin": self._lvm,
            "zfs": self._zfs,
            "callback": lambda: _callback(place),
        }[driver]
        self._times: Iterator[int] = count(1_700_000_000)
        self.pool = self.again()

    def again(self) -> Pool:
        """The pool as a daemon that starts now has it."""
        self.pool = self._make()
        self.pool.open()
        self.pool.tidy()
        return self.pool

    def origin(self, qube: str, name: str = "private", keep: int = 2) -> VolumeConfig:
        vid = self.pool.vid(qube, name, template=False)
        return VolumeConfig(name, "p", vid, keep, rw=True, save_on_stop=True, size=SIZE)

    def snapshot(self, qube: str, source: VolumeConfig) -> VolumeConfig:
        vid = self.pool.vid(qube, source.name, template=False)
        return VolumeConfig(
            source.name, "p", vid, 0, rw=True, snap_on_start=True, size=SIZE, source=source.vid
        )

    def volatile(self, qube: str) -> VolumeConfig:
        vid = self.pool.vid(qube, "volatile", template=False)
        return VolumeConfig("volatile", "p", vid, 0, rw=True, size=SIZE)

    def _lvm(self) -> Pool:
        assert isinstance(self.tools, Lvm)
        config = PoolConfig("p", "lvm_thin", {"volume_group": "dom0", "thin_pool": "thin"})
        return ThinPool(config, self.tools, self.tools.devices, lambda: float(next(self._times)))

    def _zfs(self) -> Pool:
        assert isinstance(self.tools, Zfs)
        config = PoolConfig("p", "zfs", {"container": "tank/qubes"})
        return ZfsPool(config, self.tools, self.tools.devices, lambda: float(next(self._times)))


DRIVERS = ("file-reflink", "lvm_thin", "zfs", "callback")


def _reflink(place: Path) -> ReflinkPool:
    return ReflinkPool(PoolConfig("p", "file-reflink", {"dir_path": str(place / "pool")}))


def _callback(place: Path) -> CallbackPool:
    settings = Settings("id", "file-reflink", {}, "true", {}, signals=False, text="{}")
    config = PoolConfig("p", "callback", {"conf_id": "id"})
    return CallbackPool(config, settings, _reflink(place), run, adding=True)


def content(pool: Pool, volume: VolumeConfig) -> bytes:
    """What was committed last, without the zeros at its end."""
    with pool.export(volume) as path:
        return path.read_bytes().rstrip(b"\0")


def written(pool: Pool, volume: VolumeConfig) -> bytes:
    """What the running qube sees."""
    path = pool.path(volume)
    assert path is not None
    return Path(path).read_bytes().rstrip(b"\0")


def write(pool: Pool, volume: VolumeConfig, data: bytes) -> None:
    """What a guest writes while its qube runs."""
    path = pool.path(volume)
    assert path is not None
    with open(path, "r+b") as file:
        file.write(data)


def cycle(pool: Pool, volume: VolumeConfig, data: bytes) -> None:
    """A qube starts, writes and shuts down."""
    pool.start(volume)
    write(pool, volume, data)
    pool.stop(volume)


def replace(pool: Pool, volume: VolumeConfig, data: bytes, size: int = SIZE) -> None:
    """Import."""
    with pool.begin_import(volume, size).open("r+b") as file:
        file.write(data)
    pool.end_import(volume, good=True)
