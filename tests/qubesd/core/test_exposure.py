"""What a guest lays into the list of its devices, and what is taken of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qubesd.core.exposure import announced, key_of
from qubesd.model.state import Klass, Qube

QUBE = Qube(name="sys-usb", uuid="6b7a1d3a-0f25-4c7a-9d7e-0a0b7a7f0001", qid=5, klass=Klass.APP)


@pytest.fixture(name="disk")
def fixture_disk(tmp_path: Path) -> Path:
    """A disk that is announced."""
    disk = tmp_path / "qubesdb" / QUBE.name / key_of("block") / "sda"
    disk.mkdir(parents=True)
    (disk / "size").write_text("4096")
    (disk / "mode").write_text("r")
    (tmp_path / "secret").write_text("4711")
    return disk


def test_a_disk(disk: Path, tmp_path: Path) -> None:
    (found,) = announced(tmp_path / "qubesdb", QUBE, "block")
    assert (found.port, found.data["size"], found.data["mode"]) == ("sda", "4096", "r")


def test_links_lead_nowhere_and_nobody_waits_for_a_pipe(disk: Path, tmp_path: Path) -> None:
    for key in ("size", "mode"):
        (disk / key).unlink()
    (disk / "size").symlink_to(tmp_path / "secret")
    os.mkfifo(disk / "mode")
    os.mkfifo(disk / "desc")
    (found,) = announced(tmp_path / "qubesdb", QUBE, "block")
    assert (found.data["size"], found.data["mode"], found.name) == ("0", "w", "")


@pytest.mark.parametrize("place", [key_of("block"), ""], ids=["list", "database"])
def test_a_link_is_no_list(disk: Path, tmp_path: Path, place: str) -> None:
    there = tmp_path / "qubesdb" / QUBE.name / place
    there.rename(tmp_path / "elsewhere")
    there.symlink_to(tmp_path / "elsewhere")
    assert announced(tmp_path / "qubesdb", QUBE, "block") == []
