"""Copies of the store: one for each content that a daemon began with, the newest so many."""

from __future__ import annotations

from pathlib import Path

import pytest

from qubesd.store.copies import KEPT, keep
from qubesd.store.file import FileStore
from qubesd.store.fresh import fresh_system
from tests.faults.limits import files_end_at

DAY = 86400.0
FOREIGN = ("qubes-2026-11-01-12:00:00.xml", "qubes-2026-11-01T120000.xml.mine", "notes", ".copy-mine")


def names(folder: Path) -> list[str]:
    return sorted(place.name for place in folder.iterdir())


def test_each_content_is_kept_once(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    for day, data in enumerate((b"a", b"a", b"b", b"b", b"a")):
        keep(folder, data, day * DAY)
    assert {name: (folder / name).read_bytes() for name in names(folder)} == {
        "qubes-1970-01-01T000000.xml": b"a",
        "qubes-1970-01-03T000000.xml": b"b",
        "qubes-1970-01-05T000000.xml": b"a",
    }


def test_the_oldest_go_and_what_others_put_there_stays(tmp_path: Path) -> None:
    for name in FOREIGN:
        (tmp_path / name).write_text("theirs")
    (tmp_path / ".copy-a1b2c3d4").write_text("of a daemon that was killed")
    for day in range(KEPT + 3):
        keep(tmp_path, b"%d" % day, day * DAY)
    ours = [name for name in names(tmp_path) if name not in FOREIGN]
    assert len(ours) == KEPT
    assert [(tmp_path / name).read_bytes() for name in ours] == [b"%d" % day for day in range(3, KEPT + 3)]
    assert {(tmp_path / name).read_text() for name in FOREIGN} == {"theirs"}


def test_without_room_what_was_there_stays(tmp_path: Path) -> None:
    keep(tmp_path, b"a", 0)
    with files_end_at(10), pytest.raises(OSError, match="too large"):
        keep(tmp_path, b"b" * 100, DAY)
    assert names(tmp_path) == ["qubes-1970-01-01T000000.xml"]


def test_a_store_that_is_loaded_is_copied_and_held_still(tmp_path: Path) -> None:
    path, folder = tmp_path / "qubes.xml", tmp_path / "backup"
    system = fresh_system(Path("/q"), Path("/q/vm-kernels"))
    store = FileStore(path, copies_in=folder)
    store.save(system)
    assert not folder.exists()
    assert store.load() == system
    (copy,) = folder.iterdir()
    assert copy.read_bytes() == path.read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    store.save(system.with_property("stats_interval", 1))
    assert copy.read_bytes() == (tmp_path / "qubes.xml.previous").read_bytes()
    store.close()


def test_where_it_cannot_be_copied_it_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "backup").write_text("in the way")
    system = fresh_system(Path("/q"), Path("/q/vm-kernels"))
    store = FileStore(tmp_path / "qubes.xml", copies_in=tmp_path / "backup")
    store.save(system)
    assert store.load() == system
    assert "no copy of the store was made: File exists" in caplog.text
    store.close()
