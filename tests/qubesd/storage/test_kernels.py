"""Kernels as volumes that nothing can change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qubesd.errors import BadValue, NotSupported, StorageError
from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage.kernels import KernelPool
from qubesd.storage.reflink import ReflinkPool

KERNEL = VolumeConfig("kernel", "k", "6.6.1", 0)
NONE = replace(KERNEL, vid="")


@pytest.fixture
def pool(tmp_path: Path) -> KernelPool:
    pool = KernelPool(PoolConfig("k", "linux-kernel", {"dir_path": str(tmp_path / "kernels")}))
    pool.open()
    for version, modules in (("6.6.1", b"modules" * 1000), ("6.1.9", None)):
        (pool.directory / version).mkdir()
        (pool.directory / version / "vmlinuz").write_bytes(b"kernel")
        if modules:
            (pool.directory / version / "modules.img").write_bytes(modules)
    (pool.directory / "half-installed").mkdir()
    return pool


def test_a_kernel_is_there_with_its_image_and_attached_with_its_modules(pool: KernelPool) -> None:
    assert pool.kernels() == ["6.1.9", "6.6.1"]
    assert pool.path(KERNEL) == str(pool.directory / "6.6.1/modules.img")
    assert pool.size(KERNEL) == 7000
    assert pool.usage(KERNEL) >= 7000
    with pool.export(KERNEL) as path:
        assert path.read_bytes().startswith(b"modules")
    without = replace(KERNEL, vid="6.1.9")
    assert (pool.path(without), pool.size(without), pool.usage(without)) == (None, 0, 0)
    with pytest.raises(StorageError, match=r"no modules\.img"), pool.export(without):
        pass


def test_a_qube_without_a_kernel_of_dom0_needs_none(pool: KernelPool) -> None:
    pool.start(NONE)
    assert pool.path(NONE) is None
    for missing in ("6.6.2", "half-installed"):
        with pytest.raises(StorageError, match="is not in pool"):
            pool.start(replace(KERNEL, vid=missing))


@pytest.mark.parametrize("vid", ["..", "../kernels/6.6.1", "/etc", "6.6.1/../../x", "a\0b"])
def test_no_vid_leads_out_of_the_pool(pool: KernelPool, vid: str) -> None:
    for verb in (pool.check, pool.verify, pool.path, pool.size, pool.usage):
        with pytest.raises(StorageError):
            verb(replace(KERNEL, vid=vid))


def test_nothing_changes_a_kernel(pool: KernelPool, tmp_path: Path) -> None:
    with pytest.raises(NotSupported):
        pool.snapshot(KERNEL)
    with pytest.raises(NotSupported):
        pool.revert(KERNEL, "1")
    with pytest.raises(NotSupported):
        pool.resize(KERNEL, 1 << 30)
    with pytest.raises(NotSupported):
        pool.begin_import(KERNEL, 1)
    with pytest.raises(NotSupported):
        pool.end_import(KERNEL, good=True)
    other = ReflinkPool(PoolConfig("p", "file-reflink", {"dir_path": str(tmp_path)}))
    with pytest.raises(NotSupported):
        pool.clone(KERNEL, other, KERNEL)
    pool.clone(KERNEL, pool, NONE)
    pool.remove(KERNEL)
    assert pool.kernels() == ["6.1.9", "6.6.1"]


@pytest.mark.parametrize(
    "changed",
    [
        {"rw": True},
        {"save_on_stop": True},
        {"snap_on_start": True},
        {"revisions_to_keep": 1},
        {"ephemeral": False},
    ],
)
def test_a_volume_that_could_be_written_is_refused(pool: KernelPool, changed: dict[str, object]) -> None:
    pool.check(KERNEL)
    with pytest.raises(BadValue):
        pool.check(replace(KERNEL, **changed))  # type: ignore[arg-type]


def test_a_new_volume_of_a_qube_cannot_lie_here(pool: KernelPool) -> None:
    with pytest.raises(StorageError, match="holds kernels"):
        pool.vid("work", "private", template=False)
