"""``qubes-policy-lint``: its options, its output and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker.rig import ROOT

COMMAND = (sys.executable, "-m", "broker.authoring.lint")


def said(folder: Path, *words: str, given: str = "") -> tuple[int, list[str]]:
    """Exit status and the lines of the output; nothing may be said on standard error."""
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: Path) -> Path:
    (tmp_path / "good").write_text("x * * * deny\n")
    (tmp_path / "bad").write_text("x * * * alow\n\tx * * *\tdeny  why\x1b[31m\n")
    (tmp_path / "old").write_text("$anyvm dom0 allow,user=root\n$include:good\n")
    (tmp_path / "dialect").write_text("!dialect delegation-1\nadmin.vm.Strat * ann b allow\n")
    (tmp_path / "folder").mkdir()
    return tmp_path


BAD = [
    "bad:1: error: column 9: expected allow, ask or deny, found 'alow'",
    "bad:2: error: column 16: expected NAME=VALUE, found 'why\\x1b[31m'",
]
DOUBTFUL = "dialect:2: warning: no call of the Admin API is called 'admin.vm.Strat'"


@pytest.mark.parametrize(
    ("words", "status", "lines"),
    [
        pytest.param(["good"], 0, [], id="nothing"),
        pytest.param(["bad"], 1, BAD, id="errors"),
        pytest.param(
            ["-s", "bad"],
            1,
            [f"{BAD[0]}: x * * * alow", f"{BAD[1]}: x * * * deny  why?[31m"],
            id="with-the-line",
        ),
        pytest.param(["gone"], 1, ["gone:0: error: File does not exist."], id="missing"),
        pytest.param(["-s", "gone"], 1, ["gone:0: error: File does not exist."], id="no-line-to-show"),
        pytest.param(["folder"], 1, ["folder:0: error: cannot be read: Is a directory"], id="no-file"),
        pytest.param(
            ["gone", "bad", "good", "dialect"],
            1,
            ["gone:0: error: File does not exist.", *BAD, DOUBTFUL],
            id="goes-on-through-all",
        ),
        pytest.param(["dialect"], 0, [DOUBTFUL], id="warnings-alone"),
        pytest.param(["-i", "old"], 0, [], id="old-syntax"),
        pytest.param(
            ["--include-service", "good"],
            1,
            ["good:1: error: column 5: expected allow, ask or deny, found '*'"],
            id="not-in-the-old-syntax",
        ),
        pytest.param(["ba\nd"], 1, ["'ba\\nd':0: error: File does not exist."], id="a-name-is-one-line"),
    ],
)
def test_findings(folder: Path, words: list[str], status: int, lines: list[str]) -> None:
    assert said(folder, *words) == (status, lines)


def test_standard_input(folder: Path) -> None:
    lines = [
        "-:1: error: column 2: expected SERVICE ARGUMENT SOURCE TARGET ACTION, found only 1 of these words"
    ]
    assert said(folder, "-", given="x") == (1, lines)


def test_for_programs(folder: Path) -> None:
    status, lines = said(folder, "--json", "bad", "dialect", "gone")
    found = json.loads("\n".join(lines))
    assert status == 1
    assert [(one["file"], one["line"], one["column"], one["severity"], one["kind"]) for one in found] == [
        ("bad", 1, 9, "error", "action-unknown"),
        ("bad", 2, 16, "error", "param-syntax"),
        ("dialect", 2, None, "warning", None),
        ("gone", 0, None, "error", "io"),
    ]
    assert found[2]["text"] == "admin.vm.Strat * ann b allow"


def test_called_wrongly(folder: Path) -> None:
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    "place", ["*.policy", "examples/*", "demo/*.policy", "include/operator", "demo/include/*"]
)
def test_nothing_is_found_in_the_policy_that_is_shipped(place: str) -> None:
    files = sorted(map(str, (ROOT / "policy.d").glob(place)))
    assert files
    assert said(ROOT, *files) == (0, [])


def test_nothing_is_found_in_the_shipped_files_of_the_old_syntax() -> None:
    files = sorted(map(str, (ROOT / "policy.d/include").glob("admin-*")))
    assert said(ROOT, "-i", *files) == (0, [])
