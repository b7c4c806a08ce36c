"""``tools/call``: answers on standard output, refusals and errors on standard error, each with its status."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubesd.config import load
from tools.demo import system
from tools.demo.daemon import lay_out_policy, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a daemon that serves the demo system."""
    root = tmp_path_factory.mktemp("root")
    lay_out_policy(load(root))
    with serving(root) as config:
        system.load(config.run_dir / "qubesd.sock")
        yield root


def call(root: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [ROOT / "tools/call", "--root", root, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "want"),
    [
        pytest.param(
            ("admin.vm.property.Get+label", "vault"),
            (0, "default=False type=label black\n", ""),
            id="as-dom0",
        ),
        pytest.param(
            ("--as", "alice", "admin.vm.property.Get+label", "team-wiki"),
            (0, "default=False type=label orange\n", ""),
            id="as-a-qube",
        ),
        pytest.param(
            ("admin.vm.property.Get+label", "no-such-qube"),
            (1, "", "QubesVMNotFoundError: "),
            id="an-error",
        ),
        pytest.param(
            ("--as", "no-such-qube", "admin.vm.List"),
            (1, "", "tools/call: no qube 'no-such-qube' to call as; dom0's admin.vm.List names them\n"),
            id="no-such-caller",
        ),
        pytest.param(
            ("admin.vm.List", "two words here"),
            (1, "", "QubesValueError: "),
            id="what-no-name-can-be",
        ),
    ],
)
def test_answers(served: Path, words: tuple[str, ...], want: tuple[int, str, str]) -> None:
    status, output, errors = call(served, *words)
    assert (status, output) == want[:2]
    assert errors.startswith(want[2])
    assert bool(errors) == bool(want[2])


@pytest.mark.parametrize("target", ["vault", "no-such-qube"])
def test_a_refusal_has_a_status_of_its_own(served: Path, target: str) -> None:
    status, output, errors = call(served, "--as", "bob", "admin.vm.Start", target)
    assert (status, output) == (126, "")
    assert errors.startswith("PermissionDenied: denied by policy, record ")


def test_no_daemon_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    status, output, errors = call(tmp_path, "admin.vm.List")
    assert (status, output) == (1, "")
    assert str(tmp_path / "run") in errors
