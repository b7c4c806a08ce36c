"""Programs of a backup, and what they complain of."""

from __future__ import annotations

import os
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest

from qubesd.backup.processes import Processes
from qubesd.errors import QubesError


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param("echo one >&2; echo two >&2; exit 3", "sh failed: two", id="last-line"),
        pytest.param(r"printf 'a\033[2J\377b' >&2; exit 3", r"sh failed: a\?\[2J\?b", id="not-to-be-shown"),
        pytest.param("printf '%0500d' 1 >&2; exit 3", "sh failed: 0{200}$", id="long"),
        pytest.param("exit 3", "sh failed: status 3", id="none"),
        pytest.param("kill -9 $$", "sh failed: status 9", id="killed"),
        pytest.param(
            "head -c 20000000 /dev/zero >&2; echo >&2; echo the end >&2; exit 3",
            "sh failed: the end",
            id="without-end",
        ),
        pytest.param("sleep 60 & echo why >&2; exit 3", "sh failed: why", id="one-that-goes-on"),
    ],
)
def test_what_a_program_complains_of(script: str, words: str) -> None:
    processes, before = Processes(), len(os.listdir("/proc/self/fd"))
    with (
        pytest.raises(QubesError, match=words),
        processes.running(["sh", "-c", script], DEVNULL, PIPE) as one,
    ):
        one.finish()
    assert len(os.listdir("/proc/self/fd")) == before


def test_complaints_take_no_place_on_a_disk() -> None:
    with Processes().running(["sleep", "60"], DEVNULL, DEVNULL) as one:
        assert os.readlink(f"/proc/{one.popen.pid}/fd/2").startswith("pipe:")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(QubesError, match="no-such: not installed; install it"),
        Processes().running([str(tmp_path / "no-such")], DEVNULL, DEVNULL),
    ):
        pass
