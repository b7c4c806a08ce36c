"""Volumes of the driver file: what lies in which file, as the hotplug scripts need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qubesd.errors import BadValue, NotSupported, StorageError
from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage.file import FilePool
from qubesd.storage.reflink import ReflinkPool
from tests.qubesd.storage.rigs import SIZE, content, replace

PRIVATE = VolumeConfig("private", "p", "appvms/work/private", 1, rw=True, save_on_stop=True, size=SIZE)
TEMPLATE = VolumeConfig("root", "p", "vm-templates/t/root", 0, rw=True, save_on_stop=True, size=SIZE)
ROOT = VolumeConfig(
    "root", "p", "appvms/work/root", 0, rw=True, snap_on_start=True, size=SIZE, source=TEMPLATE.vid
)
VOLATILE = VolumeConfig("volatile", "p", "appvms/work/volatile", 0, rw=True, size=SIZE)
DIRECT = VolumeConfig("private", "p", "appvms/direct/private", -1, rw=True, save_on_stop=True, size=SIZE)


@pytest.fixture
def pool(tmp_path: Path) -> FilePool:
    pool = FilePool(PoolConfig("p", "file", {"dir_path": str(tmp_path)}))
    pool.open()
    return pool


def names(pool: FilePool) -> set[str]:
    return {str(path.relative_to(pool.directory)) for path in pool.directory.rglob("*.img*")}


def test_an_origins_image_is_sparse_and_its_devices_are_made_by_a_script(pool: FilePool) -> None:
    pool.create(PRIVATE)
    image = pool.directory / "appvms/work/private.img"
    assert image.stat().st_size == SIZE
    assert image.stat().st_blocks == 0
    assert (pool.path(PRIVATE), pool.script(PRIVATE)) == (
        f"{image}:{pool.directory}/appvms/work/private-cow.img",
        "block-origin",
    )
    with pytest.raises(StorageError, match="there already"):
        pool.create(PRIVATE)


def test_what_was_overwritten_is_kept_as_the_one_revision(pool: FilePool) -> None:
    pool.create(PRIVATE)
    assert not pool.is_dirty(PRIVATE)
    for _ in range(2):
        pool.start(PRIVATE)
        assert pool.is_dirty(PRIVATE)
        cow = pool.directory / "appvms/work/private-cow.img"
        assert cow.stat().st_size == SIZE
        with pytest.raises(StorageError, match="not committed"), pool.export(PRIVATE):
            pass
        pool.stop(PRIVATE)
        assert names(pool) == {"appvms/work/private.img", "appvms/work/private-cow.img.old"}
        assert [revision.id for revision in pool.revisions(PRIVATE)] == ["old"]
    pool.create(TEMPLATE)
    pool.start(TEMPLATE)
    pool.stop(TEMPLATE)
    assert pool.revisions(TEMPLATE) == []
    for volume in (PRIVATE, TEMPLATE):
        pool.remove(volume)
    assert names(pool) == set()


def test_an_unclean_end_keeps_the_difference_for_the_next_start(pool: FilePool) -> None:
    pool.create(PRIVATE)
    pool.start(PRIVATE)
    cow = pool.directory / "appvms/work/private-cow.img"
    cow.write_bytes(b"what was there before")
    again = FilePool(pool.config)
    again.open()
    again.tidy()
    again.start(PRIVATE)
    assert cow.read_bytes() == b"what was there before"


def test_a_snapshot_lies_over_its_sources_two_files(pool: FilePool) -> None:
    with pytest.raises(StorageError, match="missing"):
        pool.start(ROOT)
    pool.create(TEMPLATE)
    pool.start(ROOT)
    template, own = pool.directory / "vm-templates/t/root", pool.directory / "appvms/work/root-cow.img"
    assert (pool.path(ROOT), pool.script(ROOT)) == (
        f"{template}.img:{template}-cow.img:{own}",
        "block-snapshot",
    )
    own.write_bytes(b"written by the qube")
    pool.stop(ROOT)
    assert not own.exists()
    pool.start(ROOT)
    assert own.stat().st_blocks == 0


def test_a_volatile_volume_and_one_without_snapshots_are_plain_files(pool: FilePool) -> None:
    pool.create(DIRECT)
    for volume in (VOLATILE, DIRECT):
        pool.start(volume)
        assert pool.script(volume) is None
        path = pool.path(volume)
        with open(path, "r+b") as file:
            file.write(b"written")
        pool.stop(volume)
    assert content(pool, DIRECT) == b"written"
    assert names(pool) == {"appvms/direct/private.img"}
    pool.start(VOLATILE)
    assert Path(pool.path(VOLATILE)).read_bytes() == bytes(SIZE)


def test_an_import_drops_the_revision_which_was_a_difference_to_what_goes(pool: FilePool) -> None:
    pool.create(PRIVATE)
    pool.start(PRIVATE)
    pool.stop(PRIVATE)
    replace(pool, PRIVATE, b"imported", 2 * SIZE)
    assert content(pool, PRIVATE) == b"imported"
    assert pool.size(PRIVATE) == 2 * SIZE
    assert pool.revisions(PRIVATE) == []
    path = pool.begin_import(PRIVATE, SIZE)
    path.write_bytes(b"in vain")
    pool.end_import(PRIVATE, good=False)
    assert content(pool, PRIVATE) == b"imported"
    assert names(pool) == {"appvms/work/private.img"}


def test_a_clone_from_another_driver(pool: FilePool, tmp_path: Path) -> None:
    other = ReflinkPool(PoolConfig("q", "file-reflink", {"dir_path": str(tmp_path / "q")}))
    other.open()
    source = VolumeConfig("private", "q", "appvms/mail/private", 2, rw=True, save_on_stop=True, size=SIZE)
    other.create(source)
    replace(other, source, b"theirs", 3 * SIZE)
    pool.create(PRIVATE)
    pool.clone(PRIVATE, other, source)
    assert content(pool, PRIVATE) == b"theirs"
    assert pool.size(PRIVATE) == 3 * SIZE


def test_what_the_driver_cannot_do_it_says(pool: FilePool) -> None:
    pool.create(PRIVATE)
    with pytest.raises(NotSupported, match="only when a qube shuts down"):
        pool.snapshot(PRIVATE)
    with pytest.raises(NotSupported, match="file-reflink"):
        pool.revert(PRIVATE, "old")
    with pytest.raises(StorageError, match="cannot resize a snapshot"):
        pool.resize(ROOT, 2 * SIZE)
    with pytest.raises(BadValue, match="at most 1"):
        pool.check(VolumeConfig("private", "p", "appvms/work/private", 2, rw=True, save_on_stop=True, size=1))


def test_a_full_disk_leaves_no_half_image(pool: FilePool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.create(PRIVATE)
    replace(pool, PRIVATE, b"before", SIZE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    pool.begin_import(PRIVATE, SIZE).write_bytes(b"after")
    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", full)
        broken.setattr(os, "replace", full)
        with pytest.raises(StorageError, match="No space left"):
            pool.end_import(PRIVATE, good=True)
    assert content(pool, PRIVATE) == b"before"
