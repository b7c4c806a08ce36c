"""Who is at work when a daemon ends is known to the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qubesd.core.at_work import AtWork

ROOT = Path(__file__).parents[3]
ENDS = """
import os, pathlib, sys
from qubesd.core.at_work import AtWork

at_work = AtWork(pathlib.Path(sys.argv[1]))
with at_work.on("outer"):
    with at_work.on("inner"):
        exec(sys.argv[2])
    exec(sys.argv[3])
exec(sys.argv[4])
"""
KILL = "os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        pytest.param((KILL, "", ""), "inner", id="in-a-handler"),
        pytest.param(("", KILL, ""), "outer", id="in-the-one-that-caused-it"),
        pytest.param(("", "", KILL), "", id="in-none"),
        pytest.param(("os._exit(0)", "", ""), "inner", id="it-ended-the-daemon"),
        pytest.param(("raise ValueError", "", ""), "", id="it-raised"),
        pytest.param(("", "", ""), "", id="the-daemon-stopped"),
    ],
)
def test_what_a_daemon_leaves(steps: tuple[str, ...], left: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDS, str(tmp_path), *steps]
    subprocess.run(command, cwd=ROOT, check=False, timeout=60, stderr=subprocess.DEVNULL)
    at_work = AtWork(tmp_path)
    assert at_work.take() == left
    assert at_work.take() == AtWork(tmp_path).take() == ""


@pytest.mark.parametrize("name", ["x" * 300, "ä", "\udc80", ""])
def test_any_name_can_be_noted(name: str, tmp_path: Path) -> None:
    at_work = AtWork(tmp_path)
    with at_work.on(name):
        pass
    assert at_work.take() == ""


def test_a_file_that_is_cut_off_has_room_again(tmp_path: Path) -> None:
    AtWork(tmp_path)
    os.truncate(tmp_path / "qubes/extension-at-work", 3)
    at_work = AtWork(tmp_path)
    with at_work.on("x"):
        assert AtWork(tmp_path).take() == "x"


def test_no_link_is_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / "qubes").mkdir()
    (tmp_path / "qubes/extension-at-work").symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"):
        AtWork(tmp_path)
    assert other.read_text() == "kept"
