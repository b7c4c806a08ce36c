"""file-reflink where the file system shares extents: on an XFS image, mounted for the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage.reflink import ReflinkPool
from tests.qubesd.storage.rigs import content, cycle, write

MIB = 1 << 20
SIZE = 64 * MIB
DATA = os.urandom(MIB) * 48
PRIVATE = VolumeConfig("private", "p", "appvms/work/private", 3, rw=True, save_on_stop=True, size=SIZE)
COPY = VolumeConfig("private", "p", "appvms/copy/private", 3, rw=True, save_on_stop=True, size=SIZE)


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("xfs")
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    image.touch()
    os.truncate(image, 512 * MIB)
    try:
        for command in (
            ["mkfs.xfs", "-q", "-m", "reflink=1", str(image)],
            ["mount", "-o", "loop", str(image), str(place)],
        ):
            subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError as error:
        pytest.skip(f"no sharing of extents was tested: {error.filename} is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no sharing of extents was tested: {error.cmd[0]} is not allowed here: {error.stderr!r}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        image.unlink()


@pytest.fixture
def pool(xfs: Path) -> Iterator[ReflinkPool]:
    pool = ReflinkPool(PoolConfig("p", "file-reflink", {"dir_path": str(xfs / "pool")}), must_share=True)
    pool.open()
    yield pool
    for volume in (PRIVATE, COPY):
        pool.remove(volume)


def taken(place: Path) -> int:
    """Bytes of the file system that are in use."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_states_copies_and_revisions_share_what_is_equal(pool: ReflinkPool, xfs: Path) -> None:
    pool.create(PRIVATE)
    cycle(pool, PRIVATE, DATA)
    once = taken(xfs)
    for line in (b"first line", b"second line"):
        cycle(pool, PRIVATE, line)
    pool.snapshot(PRIVATE)
    pool.create(COPY)
    pool.clone(COPY, pool, PRIVATE)
    pool.start(PRIVATE)
    write(pool, PRIVATE, b"third")
    assert len(pool.revisions(PRIVATE)) == 3
    assert taken(xfs) - once < 8 * MIB
    assert content(pool, COPY) == b"second line" + DATA[len(b"second line") :]
    write(pool, PRIVATE, b"and more")
    pool.stop(PRIVATE)
    assert content(pool, COPY).startswith(b"second line")
    assert content(pool, PRIVATE).startswith(b"and more")
