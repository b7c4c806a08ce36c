"""One guest's database: its keys, and what stands there beside what a guest made of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qubesd.core.guest_database import GuestDatabase, is_key


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        pytest.param("/a", True, id="word"),
        pytest.param("/a/b-c_d.e", True, id="words"),
        pytest.param("a", False, id="no-slash"),
        pytest.param("/", False, id="empty"),
        pytest.param("/a/", False, id="empty-last"),
        pytest.param("/a//b", False, id="empty-between"),
        pytest.param("/..", False, id="above"),
        pytest.param("/a/../b", False, id="above-between"),
        pytest.param("/a/./b", False, id="here"),
        pytest.param("/a~", False, id="unfinished"),
        pytest.param("/a\n", False, id="line-end"),
        pytest.param("/ä", False, id="no-ascii"),
        pytest.param("/" + "a" * 97, False, id="too-long"),
        pytest.param("/a/b/c/d/e", False, id="too-deep"),
    ],
)
def test_keys(text: str, fits: bool) -> None:
    assert is_key(text) is fits


def test_reading_and_writing(tmp_path: Path) -> None:
    database = GuestDatabase(tmp_path / "work")
    assert database.names("/a", 9) == []
    assert database.read("/a/b", 9) is None
    database.remove("/a/b")
    for name in "bcd":
        database.write(f"/a/{name}", "value")
    database.write("/a/b", "other")
    assert database.names("/a", 9) == ["b", "c", "d"]
    assert len(database.names("/a", 2)) == 2
    assert database.read("/a/b", 3) == b"oth"
    database.remove("/a/b")
    assert database.names("/a", 9) == ["c", "d"]


def test_what_is_empty_goes_with_its_last_key_and_what_is_not_stays(tmp_path: Path) -> None:
    database = GuestDatabase(tmp_path / "work")
    for key in ("/a/b/c", "/a/b/d", "/e/f"):
        database.write(key, "")
    (tmp_path / "work/e/mine").touch()
    database.remove("/a/b/c")
    assert (tmp_path / "work/a/b/d").exists()
    database.remove("/a/b/d")
    database.remove("/e/f")
    assert [place.name for place in (tmp_path / "work").iterdir()] == ["e"]
    assert [place.name for place in (tmp_path / "work/e").iterdir()] == ["mine"]


def test_what_is_touched_is_there_and_newer(tmp_path: Path) -> None:
    database = GuestDatabase(tmp_path / "work")
    database.touch("/a")
    os.utime(tmp_path / "work/a", (1, 1))
    (tmp_path / "work/a/b").touch()
    os.utime(tmp_path / "work/a", (1, 1))
    database.touch("/a")
    assert (tmp_path / "work/a").stat().st_mtime > 1
    assert (tmp_path / "work/a/b").exists()


def test_no_link_is_touched_or_removed_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").touch()
    os.utime(outside, (1, 1))
    (tmp_path / "work").mkdir()
    (tmp_path / "work/a").symlink_to(outside)
    database = GuestDatabase(tmp_path / "work")
    for call in (database.touch, database.remove):
        with pytest.raises(OSError, match="Not a directory"):
            call("/a" if call == database.touch else "/a/b")
    assert outside.stat().st_mtime == 1
    assert (outside / "b").exists()
