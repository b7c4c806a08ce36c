"""The files of extensions, put where somebody said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from broker.backup.added import new_folder, put
from qubesd.errors import QubesError
from tests.faults.limits import files_end_at


def test_a_folder_with_something_in_it_stays(tmp_path: Path) -> None:
    with new_folder(tmp_path / "x") as folder:
        put(folder, "work", "a", b"content")
    assert (tmp_path / "x/work/a").read_bytes() == b"content"
    with new_folder(tmp_path / "y"):
        pass
    assert os.listdir(tmp_path) == ["x"]
    with pytest.raises(QubesError, match="name a folder that is not"), new_folder(tmp_path / "x"):
        pass


def test_a_disk_that_takes_no_more_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    with files_end_at(4096), pytest.raises(OSError, match="File too large") as failed:
        put(tmp_path, "work", "a", bytes(100_000))
    assert failed.value.filename == str(tmp_path / "work/a")
    assert os.listdir(tmp_path / "work") == []
    put(tmp_path, "work", "a", b"content")
    with pytest.raises(FileExistsError):
        put(tmp_path, "work", "a", b"other")
    assert (tmp_path / "work/a").read_bytes() == b"content"
