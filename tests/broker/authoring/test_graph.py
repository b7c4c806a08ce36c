"""``qrexec-policy-graph``: its options, its output, pictures, and how it exits."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

import pytest

from broker.authoring.graph import Progress
from tests.broker.rig import ROOT, serving

SYSTEM = {
    "domains": {
        "dom0": {"type": "AdminVM", "tags": [], "label": "0x000000"},
        "work": {"type": "AppVM", "tags": [], "label": "0x3465a4", "uuid": "1"},
        "vault": {"type": "AppVM", "tags": [], "label": "0xcc0000", "uuid": "2"},
    }
}
POLICY = "a.S * work vault allow notify=yes\nb.S +x work dom0 ask default_target=dom0\n"
WORK = '  "work" [color = "#3465a4", penwidth = 3];'
VAULT = '  "vault" [color = "#cc0000", penwidth = 3];'
DOM0 = '  "dom0" [color = "#000000", penwidth = 3];'
ALLOWED = '  "work" -> "vault" [label="a.S" color=red];'
ASKED = '  "work" -> "dom0" [label="b.S" color=orange];'


@pytest.fixture(name="root")
def fixture_root(tmp_path: Path) -> Path:
    (tmp_path / "etc/qubes/policy.d").mkdir(parents=True)
    (tmp_path / "etc/qubes/policy.d/10-a.policy").write_text(POLICY)
    (tmp_path / "run/qubes/policy.d").mkdir(parents=True)
    (tmp_path / "run/qubes/policy.d/10-a.policy").write_text("# not read\n")
    (tmp_path / "system").write_text(json.dumps(SYSTEM))
    return tmp_path


def run(root: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)} | ({} if path is None else {"PATH": path})
    return subprocess.run(
        [sys.executable, "-m", "broker.authoring.graph", "--root", str(root), *words],
        cwd=root,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def drawn(root: Path, *words: str) -> list[str]:
    """The lines between the brackets."""
    done = run(root, "--system-info", str(root / "system"), *words)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines, last = done.stdout.splitlines()
    assert (first, last) == ("digraph g {", "}")
    return lines


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        pytest.param([], [WORK, VAULT, ALLOWED, DOM0], id="allowed"),
        pytest.param(["--include-ask"], [WORK, VAULT, ALLOWED, DOM0, ASKED], id="asked"),
        pytest.param(["--source", "vault", "dom0"], [], id="sources"),
        pytest.param(["--target", "dom0", "--include-ask"], [WORK, DOM0, ASKED], id="targets"),
        pytest.param(["--service", "c.S", "a.S"], [WORK, VAULT, ALLOWED], id="services"),
        pytest.param(["--service", "b.S", "--service", "a.S"], [WORK, VAULT, ALLOWED, DOM0], id="twice"),
        pytest.param(
            ["--skip-labels", "--service", "a.S"],
            [WORK, VAULT, '  "work" -> "vault" [label="" color=red];'],
            id="no-labels",
        ),
        pytest.param(
            ["--full-output"],
            [
                WORK,
                VAULT,
                '  "work" -> "vault" [label="a.S* allow" color=red];',
                DOM0,
                '  "work" -> "dom0" [label="b.S+x ask default_target=dom0" color=orange];',
            ],
            id="full",
        ),
    ],
)
def test_draws(root: Path, words: list[str], lines: list[str]) -> None:
    assert drawn(root, *words) == lines


def test_the_policy_is_that_of_one_directory(root: Path) -> None:
    (root / "mine").mkdir()
    (root / "mine/1.policy").write_text("a.S * vault work allow\n")
    assert drawn(root, "--policy-dir", "mine")[-1] == '  "vault" -> "work" [label="a.S" color=red];'


def test_into_a_file(root: Path) -> None:
    done = run(root, "--system-info", "system", "--output", "graph.dot")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ALLOWED in (root / "graph.dot").read_text().splitlines()


@pytest.mark.parametrize(
    ("words", "status", "hint"),
    [
        pytest.param(["--source", "@default"], 2, "expected a source, found '@default'", id="no-source"),
        pytest.param(["--target", "@anyvm"], 2, "found '@anyvm'", id="no-target"),
        pytest.param([], 2, "is qubesd running, and is this dom0?", id="no-qubesd"),
        pytest.param(["--system-info", "gone"], 2, "gone: No such file", id="no-system"),
        pytest.param(
            ["--system-info", "system", "--policy-dir", "gone"], 1, "cannot be read", id="no-policy"
        ),
        pytest.param(["--system-info", "system", "--output", "gone/x"], 2, "gone/x: No such", id="no-output"),
    ],
)
def test_what_is_not_to_be_had_is_said(root: Path, words: list[str], status: int, hint: str) -> None:
    done = run(root, *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert hint in done.stderr


def test_a_policy_that_does_not_load_is_not_drawn(root: Path) -> None:
    (root / "etc/qubes/policy.d/20-b.policy").write_text("oops\n")
    done = run(root, "--system-info", "system", "--output", "graph.dot")
    assert (done.returncode, done.stdout) == (1, "")
    assert "20-b.policy:1: column 5" in done.stderr
    assert "qubes-policy check" in done.stderr
    assert not (root / "graph.dot").exists()


def test_the_qubes_are_those_of_the_daemon_that_runs(tmp_path: Path) -> None:
    with serving(tmp_path, "a.S * alice @adminvm allow\n") as daemon:
        daemon.create("alice")
        done = run(tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert '  "alice" -> "dom0" [label="a.S" color=red];' in done.stdout.splitlines()


HOSTILE = '<script>"]];x->y\\'


def test_graphviz_makes_a_picture(root: Path) -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz (dot) is not installed")
    rule = f"c.S * work @default ask target={HOSTILE}\n"
    (root / "etc/qubes/policy.d/20-b.policy").write_text(rule)
    done = run(root, "--system-info", "system", "--include-ask", "--output", "graph.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    texts = [text.text for text in ET.parse(root / "graph.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {"work", "vault", "dom0", "a.S", "b.S", "c.S", HOSTILE} == set(texts)
    done = run(root, "--system-info", "system", "--svg")
    assert ET.fromstring(done.stdout).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("program", "hint"),
    [
        pytest.param(None, "apt-get install graphviz", id="missing"),
        pytest.param("#!/bin/sh\necho no fonts >&2\nexit 1\n", "dot: no fonts", id="failing"),
    ],
)
def test_without_graphviz_there_is_no_picture(root: Path, program: str | None, hint: str) -> None:
    (root / "bin").mkdir()
    if program is not None:
        (root / "bin/dot").write_text(program)
        (root / "bin/dot").chmod(0o755)
    done = run(root, "--system-info", "system", "--output", "graph.svg", path=str(root / "bin"))
    assert (done.returncode, done.stdout) == (2, "")
    assert hint in done.stderr
    assert not (root / "graph.svg").exists()


def test_progress_is_for_terminals_once_it_takes_a_second() -> None:
    ours, theirs = pty.openpty()
    said = b""
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with os.fdopen(theirs, "w") as terminal, Progress(terminal) as progress:
            begun = time.monotonic()
            progress.done(1, 4)
            time.sleep(max(0.0, begun + 1.01 - time.monotonic()))
            progress.done(2, 4)
        with suppress(OSError):  # which is the end of what was written to a terminal
            while piece := screen.read(1024):
                said += piece
    assert re.fullmatch(rb"(\rqrexec-policy-graph: (25|50) % of the calls)+\r\x1b\[K", said)


def test_no_progress_is_told_elsewhere(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, Progress(log) as progress:
        time.sleep(1.01)
        progress.done(2, 4)
    assert (tmp_path / "log").read_text() == ""
