"""``tools/fuzz``: our daemon holds in short, and a daemon with a flaw does not."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tools.fuzzing.campaign import CROWD

ROOT = Path(__file__).parents[2]
FLAWED = Path(__file__).with_name("flawed_daemon.py")


def fuzz(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tools/fuzz", "daemon", *options], capture_output=True, text=True, timeout=120, check=False
    )


def program(flaw: str) -> str:
    return shlex.join([sys.executable, str(FLAWED), flaw])


@pytest.mark.parametrize("swap", ["0", "1"])
def test_our_daemon_holds(swap: str) -> None:
    ended = fuzz("--seconds", "2.5", "--seed", "2", "--swap", swap, "--json")
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["finding"] is None
    assert report["kinds"].keys() == {
        "broken off",
        "evaluation",
        "noise",
        "request",
        "spoiled evaluation",
        "spoiled request",
    }
    assert report["outcomes"].keys() == {"allow", "closed without a byte", "deny", "not waited for"}
    assert report["questions"] > 0
    assert (report["edits"] > 0) == (swap != "0")
    assert report["descriptors"]["peak"] > report["descriptors"]["quiet"] + CROWD


@pytest.mark.parametrize(
    ("flaw", "what"),
    [
        pytest.param("talkative", "expected b''", id="an-answer-to-what-is-no-request"),
        pytest.param("hasty", "bytes unread|expected ", id="a-request-that-is-not-read"),
        pytest.param("leaking", "descriptors are open", id="a-descriptor-that-stays"),
        pytest.param("fragile", "ended with status 3", id="an-end"),
        pytest.param("trusting", "should not be in its log", id="a-log-that-the-caller-writes"),
        pytest.param("old-state", "expected ", id="qubes-that-are-gone"),
        pytest.param("old-policy", "expected ", id="a-policy-that-is-gone"),
    ],
)
def test_a_flaw_is_found(flaw: str, what: str) -> None:
    ended = fuzz("--seconds", "30", "--seed", "2", "--swap", "1", "--program", program(flaw))
    assert ended.returncode == 1, ended.stdout
    assert "FINDING with seed 2" in ended.stderr
    assert re.search(what, ended.stderr)


def test_a_finding_can_be_sent_again() -> None:
    found = fuzz("--seconds", "30", "--seed", "5", "--swap", "0", "--program", program("talkative"))
    again = next(line for line in found.stderr.splitlines() if "again: " in line)
    words = again.split("tools/fuzz daemon ")[1].split()
    ended = fuzz(*words, "--program", program("talkative"), "--json")
    assert ended.returncode == 1, ended.stdout
    report = json.loads(ended.stdout)
    assert report["cases"] == 1
    assert report["finding"]["case"] == int(words[words.index("--case") + 1])
    assert fuzz(*words).returncode == 0


def test_a_daemon_that_does_not_start_is_told_of() -> None:
    ended = fuzz("--program", shlex.join([sys.executable, "-c", "raise SystemExit(9)"]))
    assert ended.returncode == 2
    assert "ended with status 9 at its start" in ended.stderr
