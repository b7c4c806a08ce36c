"""An archive's file: there whole or not at all."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from qubesd.backup.destination import to_file
from qubesd.backup.notes import FileStays, Notes
from qubesd.backup.processes import Processes
from qubesd.errors import BackupCancelled, QubesError


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    place, notes = tmp_path / "a", tmp_path / "notes"
    place.write_bytes(b"old")
    with to_file(str(place), Notes(notes), Processes()) as target:
        os.write(target, b"new")
        assert place.read_bytes() == b"old"
    assert place.read_bytes() == b"new"
    assert place.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["a", "notes"]
    assert os.listdir(notes) == []


def write_and_fail(place: Path, notes: Path) -> None:
    with to_file(str(place), Notes(notes), Processes()) as target:
        os.write(target, b"new")
        raise QubesError("no more")


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    place, notes = tmp_path / "a", tmp_path / "notes"
    place.write_bytes(b"old")
    with pytest.raises(QubesError, match="no more"):
        write_and_fail(place, notes)
    assert place.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "notes"]
    assert os.listdir(notes) == []


def test_it_can_be_cancelled_until_it_takes_its_place(tmp_path: Path) -> None:
    place, notes, processes = tmp_path / "a", tmp_path / "notes", Processes()
    place.write_bytes(b"old")
    with pytest.raises(BackupCancelled), to_file(str(place), Notes(notes), processes):
        processes.cancel()
    assert place.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "notes"]


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """A disk would not be written to, but its name taken."""
    os.mkfifo(tmp_path / "a")
    with (
        pytest.raises(QubesError, match="is no file, such as a disk"),
        to_file(str(tmp_path / "a"), Notes(tmp_path / "notes"), Processes()),
    ):
        pass
    assert (tmp_path / "a").is_fifo()


def test_a_folder_gets_a_file_named_for_the_time(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with to_file(str(folder), Notes(tmp_path / "notes"), Processes()):
        pass
    (name,) = os.listdir(folder)
    assert re.fullmatch(r"qubes-\d{4}-\d\d-\d\dT\d{6}", name)


def test_two_at_one_place(tmp_path: Path) -> None:
    place, notes = tmp_path / "a", tmp_path / "notes"
    with to_file(str(place), Notes(notes), Processes()):
        with (
            pytest.raises(QubesError, match="another backup is being written"),
            to_file(str(place), Notes(notes), Processes()),
        ):
            pass
        assert len(os.listdir(notes)) == 1
    assert os.listdir(notes) == []


def test_what_cannot_be_removed_stays_noted(tmp_path: Path) -> None:
    """As on a disk that was pulled out."""
    place, notes = tmp_path / "a", tmp_path / "notes"
    with (
        pytest.raises(FileStays, match=r"\.a\.unfinished: stays there .* the backup failed: no more"),
        to_file(str(place), Notes(notes), Processes()),
    ):
        in_its_way(tmp_path / ".a.unfinished")
    assert len(os.listdir(notes)) == 1


def in_its_way(unfinished: Path) -> NoReturn:
    unfinished.unlink()
    unfinished.mkdir()
    raise QubesError("no more")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    done = subprocess.run(words, check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"no full disk was tested: {done.stderr!r}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def write_much(place: Path, notes: Path) -> None:
    with to_file(str(place), Notes(notes), Processes()) as target:
        for _ in range(100):
            os.write(target, bytes(1 << 14))


def test_a_full_disk(tmp_path: Path, small: Path) -> None:
    place = small / "a"
    with pytest.raises(QubesError, match="free some space"):
        write_much(place, tmp_path / "notes")
    assert os.listdir(small) == []
    assert os.listdir(tmp_path / "notes") == []
