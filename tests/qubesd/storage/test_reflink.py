"""Volumes of the file-reflink driver through their lives, on real files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qubesd.errors import NoSuchRevision, StorageError
from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage.reflink import ReflinkPool

SIZE = 1 << 20
PRIVATE = VolumeConfig("private", "p", "appvms/work/private", 2, rw=True, save_on_stop=True, size=SIZE)
TEMPLATE = VolumeConfig("root", "p", "vm-templates/t/root", 1, rw=True, save_on_stop=True, size=SIZE)
ROOT = VolumeConfig(
    "root", "p", "appvms/work/root", 1, rw=True, snap_on_start=True, size=SIZE, source=TEMPLATE.vid
)
VOLATILE = VolumeConfig("volatile", "p", "appvms/work/volatile", 1, rw=True, size=SIZE)


@pytest.fixture
def pool(tmp_path: Path) -> ReflinkPool:
    pool = ReflinkPool(PoolConfig("p", "file-reflink", {"dir_path": str(tmp_path / "pool")}))
    pool.open()
    return pool


def content(pool: ReflinkPool, volume: VolumeConfig) -> bytes:
    with pool.export(volume) as path:
        return path.read_bytes().rstrip(b"\0")


def write(pool: ReflinkPool, volume: VolumeConfig, data: bytes) -> None:
    """What a guest writes while its qube runs."""
    with open(pool.path(volume), "r+b") as file:
        file.write(data)


def run(pool: ReflinkPool, volume: VolumeConfig, data: bytes) -> None:
    pool.start(volume)
    write(pool, volume, data)
    pool.stop(volume)


def test_an_origin_keeps_what_was_written_and_the_states_before(pool: ReflinkPool) -> None:
    pool.create(PRIVATE)
    for data in (b"one", b"two", b"three"):
        run(pool, PRIVATE, data)
    assert content(pool, PRIVATE) == b"three"
    assert [revision.id for revision in pool.revisions(PRIVATE)] == ["2", "3"]
    pool.revert(PRIVATE, "2")
    assert content(pool, PRIVATE) == b"one"
    assert [revision.id for revision in pool.revisions(PRIVATE)] == ["3", "4"]
    pool.revert(PRIVATE, "4")
    assert content(pool, PRIVATE) == b"three"


def test_uncommitted_writes_are_kept_over_an_unclean_end_and_refuse_everything_else(
    pool: ReflinkPool,
) -> None:
    pool.create(PRIVATE)
    run(pool, PRIVATE, b"one")
    pool.start(PRIVATE)
    write(pool, PRIVATE, b"two")
    assert pool.is_dirty(PRIVATE)
    assert content(pool, PRIVATE) == b"one"
    with pytest.raises(StorageError, match="not committed"):
        pool.begin_import(replace(PRIVATE, revisions_to_keep=0), SIZE)
    with pytest.raises(StorageError, match="not committed"):
        pool.revert(PRIVATE, "1")
    pool.tidy()
    pool.start(PRIVATE)
    pool.stop(PRIVATE)
    assert content(pool, PRIVATE) == b"two"


def test_a_snapshot_is_its_sources_committed_state_at_each_start(pool: ReflinkPool) -> None:
    pool.create(TEMPLATE)
    run(pool, TEMPLATE, b"system")
    pool.create(ROOT)
    pool.start(ROOT)
    write(pool, ROOT, b"mine")
    assert pool.is_outdated(ROOT) is False
    run(pool, TEMPLATE, b"update")
    assert pool.is_outdated(ROOT) is True
    pool.stop(ROOT)
    assert pool.is_outdated(ROOT) is False
    pool.start(ROOT)
    assert Path(pool.path(ROOT)).read_bytes().startswith(b"update")


def test_a_volatile_volume_is_empty_at_each_start(pool: ReflinkPool) -> None:
    for _ in range(2):
        pool.start(VOLATILE)
        assert Path(pool.path(VOLATILE)).stat().st_size == SIZE
        assert Path(pool.path(VOLATILE)).read_bytes().count(0) == SIZE
        write(pool, VOLATILE, b"secret")
        pool.stop(VOLATILE)
        assert not Path(pool.path(VOLATILE)).exists()


def test_with_snapshots_disabled_the_guest_writes_into_the_volume(pool: ReflinkPool) -> None:
    volume = VolumeConfig("private", "p", "appvms/a/private", -1, rw=True, save_on_stop=True, size=SIZE)
    pool.create(volume)
    run(pool, volume, b"one")
    assert content(pool, volume) == b"one"
    assert pool.revisions(volume) == []
    assert not pool.is_dirty(volume)


def test_a_snapshot_by_hand_is_a_revision_that_later_writes_do_not_reach(pool: ReflinkPool) -> None:
    pool.create(PRIVATE)
    run(pool, PRIVATE, b"one")
    made = pool.snapshot(PRIVATE)
    pool.resize(PRIVATE, 2 * SIZE)
    run(pool, PRIVATE, b"two")
    pool.revert(PRIVATE, made)
    assert content(pool, PRIVATE) == b"one"
    assert pool.size(PRIVATE) == SIZE


def test_a_volume_shrinks_only_by_what_holds_nothing(pool: ReflinkPool) -> None:
    pool.create(PRIVATE)
    pool.resize(PRIVATE, SIZE // 2)
    assert pool.size(PRIVATE) == SIZE // 2
    pool.start(PRIVATE)
    with pytest.raises(StorageError, match="smaller"):
        pool.resize(PRIVATE, 0)


def test_size_grows_in_use_and_at_rest_and_data_stays(pool: ReflinkPool) -> None:
    pool.create(PRIVATE)
    pool.resize(PRIVATE, 2 * SIZE)
    pool.start(PRIVATE)
    pool.resize(PRIVATE, 3 * SIZE)
    pool.stop(PRIVATE)
    assert pool.size(PRIVATE) == 3 * SIZE
    with open(pool.begin_import(PRIVATE, 3 * SIZE), "r+b") as file:
        file.seek(2 * SIZE)
        file.write(b"x")
    pool.end_import(PRIVATE, True)
    with pytest.raises(StorageError, match="smaller"):
        pool.resize(PRIVATE, 2 * SIZE)
    with pytest.raises(StorageError, match="smaller"):
        pool.resize(PRIVATE, 0)
    with pytest.raises(StorageError, match="no image"):
        pool.resize(PRIVATE, 1 << 60)


def test_an_import_is_all_or_nothing(pool: ReflinkPool) -> None:
    pool.create(PRIVATE)
    run(pool, PRIVATE, b"one")
    for good, expected in ((False, b"one"), (True, b"new")):
        with open(pool.begin_import(PRIVATE, 2 * SIZE), "r+b") as file:
            file.write(b"new")
        with pytest.raises(StorageError, match="already"):
            pool.begin_import(PRIVATE, SIZE)
        pool.end_import(PRIVATE, good)
        assert content(pool, PRIVATE) == expected
    assert pool.size(PRIVATE) == 2 * SIZE
    pool.revert(PRIVATE, pool.revisions(PRIVATE)[-1].id)
    assert content(pool, PRIVATE) == b"one"


def test_a_clone_is_the_last_committed_state_and_its_size(pool: ReflinkPool) -> None:
    other = VolumeConfig("private", "p", "appvms/other/private", 0, rw=True, save_on_stop=True, size=SIZE)
    for volume in (PRIVATE, other):
        pool.create(volume)
    pool.resize(PRIVATE, 2 * SIZE)
    run(pool, PRIVATE, b"one")
    pool.start(PRIVATE)
    write(pool, PRIVATE, b"two")
    pool.clone(other, pool, PRIVATE)
    assert content(pool, other) == b"one"
    assert pool.size(other) == 2 * SIZE
    assert pool.revisions(other) == []


def test_what_an_ended_daemon_was_making_goes_and_the_rest_stays(pool: ReflinkPool) -> None:
    pool.create(PRIVATE)
    run(pool, PRIVATE, b"one")
    place = pool.begin_import(PRIVATE, SIZE)
    place.with_name("private-dirty.img~").write_bytes(b"half")
    pool.tidy()
    assert sorted(path.name for path in place.parent.iterdir() if "@" not in path.name) == ["private.img"]
    assert content(pool, PRIVATE) == b"one"


def test_nothing_is_left_of_a_removed_volume(pool: ReflinkPool) -> None:
    for volume in (PRIVATE, TEMPLATE, ROOT, VOLATILE):
        pool.create(volume)
        run(pool, volume, b"x")
        pool.start(volume)
    for volume in (PRIVATE, ROOT, VOLATILE, TEMPLATE, PRIVATE):
        pool.remove(volume)
    assert pool.directory is not None
    assert [path.name for path in sorted(pool.directory.rglob("*"))] == ["appvms", "vm-templates"]


@pytest.mark.parametrize("vid", ["../x", "/etc/x", "a//b", "a/../b", "", "a/.", "a\0b", "a b"])
def test_no_vid_leads_out_of_the_pool(pool: ReflinkPool, vid: str) -> None:
    with pytest.raises(StorageError, match="no such name"):
        pool.check(VolumeConfig("private", "p", vid, 1, rw=True, save_on_stop=True, size=SIZE))


def test_refusals(pool: ReflinkPool) -> None:
    pool.create(PRIVATE)
    with pytest.raises(NoSuchRevision):
        pool.revert(PRIVATE, "7")
    with pytest.raises(StorageError, match="keeps its content"):
        pool.begin_import(VOLATILE, SIZE)
    with pytest.raises(StorageError, match="missing"):
        pool.verify(ROOT)
    with pytest.raises(StorageError, match="there already"):
        pool.create(PRIVATE)
