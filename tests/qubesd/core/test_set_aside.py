"""What guests leave goes, whatever it is, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qubesd.core.set_aside import SetAside


def deep(place: Path) -> None:
    """Further down than any path can say, or any number of open folders reach."""
    descriptor = os.open(place, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("a", dir_fd=descriptor)
        below = os.open("a", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def wide(place: Path) -> None:
    for number in range(3000):
        (place / f"folder-{number}").mkdir()
        (place / f"file-{number}").touch()


def odd(place: Path) -> None:
    (place / "to-folder").symlink_to(place.parent / "outside")
    (place / "to-file").symlink_to(place.parent / "outside/kept")
    (place / "to-itself").symlink_to(place / "to-itself")
    os.mkfifo(place / "fifo")
    (place / "a\n\udcff").touch()
    (place / "file").touch()


@pytest.mark.parametrize("fill", [deep, wide, odd], ids=lambda fill: str(fill.__name__))
def test_it_is_out_of_the_way_at_once_and_gone_after_a_sweep(tmp_path: Path, fill: object) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("kept")
    (tmp_path / "work").mkdir()
    assert callable(fill)
    fill(tmp_path / "work")
    aside = SetAside(tmp_path / "~")
    aside.take(tmp_path / "work")
    assert not (tmp_path / "work").exists()
    aside.sweep()
    assert list((tmp_path / "~").iterdir()) == []
    assert (tmp_path / "outside/kept").read_text() == "kept"


def test_a_link_in_the_place_of_a_folder_is_taken_itself(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()
    (tmp_path / "work").symlink_to(tmp_path / "outside")
    aside = SetAside(tmp_path / "~")
    aside.take(tmp_path / "work")
    aside.sweep()
    assert sorted(place.name for place in tmp_path.iterdir()) == ["outside", "~"]
    assert (tmp_path / "outside/kept").exists()


def test_a_sweep_ends_and_the_next_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for number in range(100):
        (tmp_path / f"work/{number}").touch()
    aside = SetAside(tmp_path / "~")
    aside.take(tmp_path / "work")
    aside.sweep(most=60)
    (left,) = (tmp_path / "~").iterdir()
    assert 30 < len(list(left.iterdir())) < 50
    aside.sweep(most=60)
    assert list((tmp_path / "~").iterdir()) == []


def test_nothing_to_take_and_nothing_to_sweep(tmp_path: Path) -> None:
    aside = SetAside(tmp_path / "~")
    aside.take(tmp_path / "work")
    aside.sweep()
    assert list(tmp_path.iterdir()) == []
