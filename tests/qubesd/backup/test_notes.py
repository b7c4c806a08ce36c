"""Notes about files that are being written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qubesd.backup.notes import FileStays, Notes
from qubesd.errors import QubesError


def left_behind(notes: Path, file: Path) -> None:
    """A note of a daemon that is dead; the file may be there or not."""
    with suppress(FileStays), Notes(notes).about(file):
        raise FileStays


@pytest.mark.parametrize(
    ("name", "made", "goes"),
    [
        pytest.param(".a.unfinished", True, True, id="unfinished"),
        pytest.param(".a.unfinished", False, False, id="not-begun"),
        pytest.param("precious", True, False, id="another-name"),
    ],
)
def test_only_what_is_unfinished_goes(tmp_path: Path, name: str, made: bool, goes: bool) -> None:
    notes, file = tmp_path / "notes", tmp_path / name
    if made:
        file.touch()
    left_behind(notes, file)
    assert len(os.listdir(notes)) == 1
    Notes(notes).clear()
    assert file.exists() is (made and not goes)
    assert os.listdir(notes) == []


@pytest.mark.parametrize("before", [False, True], ids=["new", "where-another-was-broken-off"])
def test_what_is_being_written_is_left_alone(tmp_path: Path, before: bool) -> None:
    folder, file = tmp_path / "notes", tmp_path / ".a.unfinished"
    notes = Notes(folder)
    if before:
        left_behind(folder, file)
    file.touch()
    with notes.about(file):
        notes.clear()
        assert file.exists()
        assert len(os.listdir(folder)) == 1 + before
    assert len(os.listdir(folder)) == before


@pytest.mark.parametrize("content", [b"", b"1", b"x y.unfinished", b"\xff"])
def test_what_is_no_note(tmp_path: Path, content: bytes) -> None:
    for name in ("0" * 32, "other"):
        (tmp_path / name).write_bytes(content)
    Notes(tmp_path).clear()
    assert "other" in os.listdir(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    with (
        pytest.raises(QubesError, match="notes: cannot be written"),
        Notes(tmp_path / "notes").about(tmp_path),
    ):
        pass


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A place where a disk can be put, which is another file system."""
    inside, place = tmp_path / "inside", tmp_path / "disk"
    inside.mkdir()
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "none", inside], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"no disk was taken away: {done.stderr!r}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", inside], check=True)


def test_a_disk_that_is_away(tmp_path: Path, disk: Path) -> None:
    """Its place is there, and empty."""
    notes, put_in = tmp_path / "notes", ["mount", "--bind", str(tmp_path / "inside"), str(disk)]
    subprocess.run(put_in, check=True)
    (disk / ".a.unfinished").touch()
    left_behind(notes, disk / ".a.unfinished")
    subprocess.run(["umount", disk], check=True)
    Notes(notes).clear()
    assert len(os.listdir(notes)) == 1
    subprocess.run(put_in, check=True)
    try:
        Notes(notes).clear()
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)
    assert os.listdir(notes) == []
