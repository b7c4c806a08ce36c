"""``tools/run``: the demo system is made once, the tour says who may what and leaves everything as it was."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker import client
from tools.demo.callers import listed
from tools.demo.daemon import DaemonError, serving

ROOT = Path(__file__).parents[2]
LIMIT = 90.0
"""Seconds for one start, tour and stop."""


def tour(var: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.demo", "--once", "--root", str(var)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def state(public: Path) -> dict[str, bytes]:
    """All that dom0 can read of each qube."""
    names = [row["name"] for row in listed(public)]
    reads = ("admin.vm.property.GetAll", "admin.vm.tag.List", "admin.vm.feature.List")
    return {f"{name} {read}": client.call(public, read, name) for name in names for read in reads}


def test_the_tour_twice(tmp_path: Path) -> None:
    first = tour(tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    assert "with a new demo system" in first.stdout
    with serving(tmp_path) as config:
        before = state(config.run_dir / "qubesd.sock")
    second = tour(tmp_path)
    assert (second.returncode, second.stderr) == (0, "")
    assert "with the demo system as it was left" in second.stdout
    assert timeless(first) == timeless(second)
    with serving(tmp_path) as config:
        assert state(config.run_dir / "qubesd.sock") == before


def timeless(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Without the first line, which has the duration of the start, and the audit record, which has a time."""
    return [line for line in done.stdout.splitlines()[1:] if '"time"' not in line]


def test_what_the_tour_says(tmp_path: Path) -> None:
    said = tour(tmp_path).stdout
    table = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith("  ")}
    assert table["team-web"] != []
    row = re.compile(r"^  (\S+) +(\S+) +(\S+) +(\S+)$", re.MULTILINE)
    lists = {name: (alice, bob, dom0) for name, alice, bob, dom0 in row.findall(said)}
    assert lists["alice-mail"] == ("Halted", "-", "Halted")
    assert lists["bob-build"] == ("-", "Halted", "Halted")
    assert lists["team-web"] == ("Halted", "Halted", "Halted")
    assert lists["vault"] == ("-", "-", "Halted")
    assert re.search(r"team-web +admin\.vm\.property\.Set\+memory 500 +ok +ok +ok$", said, re.MULTILINE)
    assert re.search(r"Set\+memory 8000 +denied +denied +ok$", said, re.MULTILINE)
    assert re.search(r"Set\+netvm sys-lab +denied +denied +ok$", said, re.MULTILINE)
    assert re.search(r"vault +admin\.vm\.property\.Get\+label +denied +denied +black$", said, re.MULTILINE)
    assert re.search(
        r"no-such-qube +admin\.vm\.property\.Get\+label +denied +denied +QubesVMNotFoundError$",
        said,
        re.MULTILINE,
    )
    assert re.search(r'"caller": "bob".*"decision": "deny".*30-demo-bob\.policy:\d+"', said)
    assert "admin.vm.Kill * bob @tag:managed-by-bob,@tag:managed-by-alice deny notify=no" in said


def test_what_only_the_dialect_can_refuse(tmp_path: Path) -> None:
    said = tour(tmp_path).stdout
    assert re.findall(r"^  (\w+) .* denied, (.+)$", said, re.MULTILINE) == [
        ("bob", "not this name"),
        ("alice", "not her template"),
        ("alice", "not this label"),
        ("bob", "not this feature"),
        ("bob", "out of its frame"),
    ]
    assert [
        re.sub(r"record \d+", "record", told) for told in re.findall(r"is told (.+)$", said, re.MULTILINE)
    ] == [
        "denied: a limit is reached; qubes: 1 of 1",
        "denied: a limit is reached; memory: 0 of 1073741824 bytes, 2097152000 more wanted",
        "denied by policy, record",
        "denied by policy, record",
    ]


def test_the_tour_fits_a_hundred_columns(tmp_path: Path) -> None:
    lines = tour(tmp_path).stdout.splitlines()
    assert [line for line in lines[1:] if len(line) > 100 and str(tmp_path) not in line] == []


def test_no_step_of_the_tour_goes_wrong(tmp_path: Path) -> None:
    said = tour(tmp_path).stdout
    assert re.findall(r"\w+Error", said) == ["QubesVMNotFoundError"]
    assert re.search(r"^  alice +team-web admin\.vm\.Kill +ok$", said, re.MULTILINE)


def test_a_policy_that_does_not_load_denies_all_but_dom0_and_says_where(tmp_path: Path) -> None:
    assert tour(tmp_path).returncode == 0
    mine = tmp_path / "etc/qubes/policy.d/20-mine.policy"
    mine.write_text("admin.vm.Start * bob vault alow\n", encoding="utf-8")
    done = tour(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(
        r"team-web +admin\.vm\.property\.Get\+label +denied +denied +orange$", done.stdout, re.MULTILINE
    )
    assert f"{mine}:1: column 28: " in done.stdout


def test_colour_is_for_terminals_only(tmp_path: Path) -> None:
    assert "\x1b[" not in tour(tmp_path, TERM="xterm").stdout
    keeper, terminal = pty.openpty()
    with os.fdopen(keeper, "rb") as screen:
        shown = subprocess.Popen(
            [sys.executable, "-m", "tools.demo", "--once", "--root", str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        said = b""
        while True:
            try:
                more = os.read(screen.fileno(), 65536)
            except OSError:  # the terminal's last user has gone
                break
            said += more
        assert shown.wait(LIMIT) == 0
    assert b"\x1b[31mdenied" in said


def test_a_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    store = tmp_path / "var/lib/qubes/qubes.xml"
    store.parent.mkdir(parents=True)
    store.write_text("<qubes", encoding="utf-8")
    done = tour(tmp_path)
    assert done.returncode == 1
    assert str(store) in done.stderr
    assert store.read_text(encoding="utf-8") == "<qubes"


def test_a_second_daemon_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as config:
        with pytest.raises(DaemonError), serving(tmp_path):
            pass
        assert client.call(config.run_dir / "qubesd.sock", "admin.vm.List").startswith(b"dom0 ")
