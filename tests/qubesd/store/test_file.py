"""The file on the disk: whole at every instant, ours alone, never written over unseen."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubesd.errors import StoreError
from qubesd.model.state import System
from qubesd.store.file import FileStore
from qubesd.store.fresh import fresh_system
from qubesd.store.xml import load

ROOT = Path(__file__).parents[3]


@pytest.fixture
def system() -> System:
    return fresh_system(Path("/q"), Path("/q/vm-kernels"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qubes.xml"


@pytest.fixture
def store(path: Path) -> Iterator[FileStore]:
    store = FileStore(path)
    yield store
    store.close()


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own, since a lock is a process's."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def versions(system: System) -> list[System]:
    return [system.with_property("stats_interval", number) for number in range(1, 5)]


def test_what_is_saved_is_loaded(store: FileStore, system: System) -> None:
    assert not store.exists()
    store.save(system)
    assert store.exists()
    assert store.load() == system


def test_saving_again_and_again(store: FileStore, path: Path, system: System) -> None:
    store.save(system)
    for version in versions(system):
        before = path.read_bytes()
        store.save(version)
        assert store.previous.read_bytes() == before
    assert store.load() == versions(system)[-1]
    assert sorted(path.parent.iterdir()) == [path, store.previous]


def test_mode(store: FileStore, path: Path, system: System) -> None:
    store.save(system)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_group(path: Path, system: System) -> None:
    with pytest.raises(StoreError, match="no-such-group"):
        FileStore(path, "no-such-group").save(system)
    assert list(path.parent.iterdir()) == []


def test_missing(store: FileStore, path: Path) -> None:
    with pytest.raises(StoreError, match=f"{path}: cannot be read: No such file"):
        store.load()


@pytest.mark.parametrize("content", [b"", b"<qubes>", b"<qubes version='9'/>", b"\xff\xfe"])
def test_a_damaged_file_is_not_touched(store: FileStore, path: Path, system: System, content: bytes) -> None:
    path.write_bytes(content)
    before = path.stat()
    with pytest.raises(StoreError, match=f"^{path}:"):
        store.load()
    with pytest.raises(StoreError, match="changed by someone else"):
        store.save(system)
    assert path.read_bytes() == content
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert list(path.parent.iterdir()) == [path]


def edit_in_place(path: Path) -> None:
    path.write_bytes(
        path.read_bytes().replace(b"linux-kernel</property>", b"linux-kernel</property><!-- -->")
    )


def replace(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    new.rename(path)


@pytest.mark.parametrize("change", [edit_in_place, replace, Path.unlink])
def test_a_foreign_change_is_not_written_over(
    store: FileStore, path: Path, system: System, change: object
) -> None:
    store.save(system)
    assert callable(change)
    change(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StoreError, match="changed by someone else"):
        store.save(versions(system)[0])
    assert (path.read_bytes() if path.exists() else None) == before


HOLD = """
import sys
from pathlib import Path
from qubesd.store.file import FileStore
store = FileStore(Path(sys.argv[1]))
system = store.load()
store.save(system.with_property("stats_interval", 9))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time(store: FileStore, path: Path, system: System) -> None:
    store.save(system)
    store.close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="held by another process"):
            store.load()
    finally:
        holder.communicate()
    assert store.load().properties["stats_interval"] == 9


def test_the_lock_is_kept_over_saves(store: FileStore, path: Path, system: System) -> None:
    store.save(system)
    store.load()
    store.save(versions(system)[0])
    other = python(HOLD, path)
    _, errors = other.communicate(timeout=60)
    assert "held by another process" in errors


SAVE = """
import itertools, sys
from pathlib import Path
from qubesd.store.file import FileStore
store = FileStore(Path(sys.argv[1]))
system = store.load()
print("begun", flush=True)
for number in itertools.count(1):
    store.save(system.with_property("stats_interval", number))
    print(number, flush=True)
"""


@pytest.mark.parametrize("attempt", range(4))
def test_killed_while_saving(store: FileStore, path: Path, system: System, attempt: int) -> None:
    """Whatever the instant: a whole system, and nothing that was acknowledged is lost."""
    store.save(system)
    store.close()
    saver = python(SAVE, path)
    assert saver.stdout is not None
    assert saver.stdout.readline() == "begun\n"
    time.sleep(0.03 + attempt * 0.0137)  # not for a state to come: the instant is meant to be any
    saver.kill()
    output, _ = saver.communicate()
    acknowledged = int(output.split("\n")[-2]) if output.count("\n") else 0
    found = store.load().properties.get("stats_interval", 0)
    assert found in (acknowledged, acknowledged + 1)
    assert {one.name for one in path.parent.iterdir()} <= {path.name, store.previous.name}


LIMITED = """
import resource, sys
from pathlib import Path
from qubesd.errors import StoreError
from qubesd.store.file import FileStore
store = FileStore(Path(sys.argv[1]))
system = store.load()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    store.save(system.with_property("stats_interval", 9))
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.save(system.with_property("stats_interval", 10))
"""


def test_a_write_that_breaks_off_leaves_the_file(store: FileStore, path: Path, system: System) -> None:
    store.save(system)
    store.close()
    writer = python(LIMITED, path)
    output, errors = writer.communicate(timeout=60)
    assert (output, errors) == (
        f"{path}: cannot be written, nothing was changed: File too large: "
        "raise the daemon's limit on the size of files and try again\n",
        "",
    )
    assert sorted(path.parent.iterdir()) == [path, store.previous]
    assert load(store.previous.read_bytes()) == system
    assert store.load().properties["stats_interval"] == 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mount of a tmpfs is missing here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_disk_full(small_disk: Path, system: System) -> None:
    store = FileStore(small_disk / "qubes.xml")
    store.save(system)
    before = store.path.read_bytes()
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 4096 * 8)
    large = system.with_qube(system.qubes["dom0"].with_feature("x", "y" * 40000))
    with pytest.raises(StoreError, match="No space left on device: free some space"):
        store.save(large)
    assert store.path.read_bytes() == before
    assert sorted(small_disk.iterdir()) == [filler, store.path]
    filler.unlink()
    small = versions(system)[0]
    store.save(small)
    assert store.load() == small
    store.close()


@pytest.mark.parametrize("first", [True, False])
def test_a_replacement_that_may_not_last_is_undone(
    store: FileStore, path: Path, system: System, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """A directory that cannot be synced is not to be had; only the call itself is made to fail."""
    if not first:
        store.save(system)
    before = path.read_bytes() if path.exists() else None
    fsync = os.fsync

    def failing(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(5, "Input/output error")
        fsync(fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        for version in versions(system)[:2]:
            with pytest.raises(StoreError, match="Input/output error"):
                store.save(version)
    assert (path.read_bytes() if path.exists() else None) == before
    store.save(versions(system)[1])
    assert store.load() == versions(system)[1]


def test_left_overs_go(store: FileStore, path: Path, system: System) -> None:
    store.save(system)
    for left in ("qubes.xml~abc_12z9", "qubes.xml~link"):
        path.with_name(left).write_bytes(b"half")
    mine = ("qubes.xml", "qubes.xml.keep", "qubes.xml~", "qubes.xml~before-upgrade", "other.xml~abc_12z9")
    for name in mine[1:]:
        path.with_name(name).write_bytes(b"mine")
    store.load()
    assert sorted(one.name for one in path.parent.iterdir()) == sorted(mine)


def test_a_directory_that_is_gone(tmp_path: Path, system: System) -> None:
    with pytest.raises(StoreError, match="cannot be written, nothing was changed: No such file"):
        FileStore(tmp_path / "nowhere" / "qubes.xml").save(system)
