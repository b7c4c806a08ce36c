"""``qubes-policy-lint``: its options, its output and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.authoring.lint import main
from tests.broker.rig import ROOT

Said = tuple[int, list[str]]
"""Exit status, and the lines of the output."""


@pytest.fixture(name="said")
def fixture_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """The command, given in that folder; nothing may be said on standard error."""
    monkeypatch.chdir(folder)

    def said(*words: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        assert err == ""
        return int(ended.value.code or 0), out.splitlines()

    return said


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
def test_findings(said: Callable[..., Said], words: list[str], status: int, lines: list[str]) -> None:
    assert said(*words) == (status, lines)


def run(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "broker.authoring.lint", *words]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)


def test_standard_input() -> None:
    done = run("-", given="x")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("-:1: error: column 2: expected SERVICE ARGUMENT SOURCE TARGET ACTION")


def test_for_programs(said: Callable[..., Said]) -> None:
    status, lines = said("--json", "bad", "dialect", "gone")
    found = json.loads("\n".join(lines))
    assert status == 1
    assert [(one["file"], one["line"], one["column"], one["severity"], one["kind"]) for one in found] == [
        ("bad", 1, 9, "error", "action-unknown"),
        ("bad", 2, 16, "error", "param-syntax"),
        ("dialect", 2, None, "warning", None),
        ("gone", 0, None, "error", "io"),
    ]
    assert found[2]["text"] == "admin.vm.Strat * ann b allow"


def test_called_wrongly() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    "place", ["*.policy", "examples/*", "demo/*.policy", "include/operator", "demo/include/*"]
)
def test_nothing_is_found_in_the_policy_that_is_shipped(said: Callable[..., Said], place: str) -> None:
    files = sorted(map(str, (ROOT / "policy.d").glob(place)))
    assert files
    assert said(*files) == (0, [])


def test_nothing_is_found_in_the_shipped_files_of_the_old_syntax(said: Callable[..., Said]) -> None:
    files = sorted(map(str, (ROOT / "policy.d/include").glob("admin-*")))
    assert said("-i", *files) == (0, [])
