"""The command line of ``qube-backup``: options stand on either side of the archive and the qubes."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.backup.program import parser


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("--exclude x --json a work mail", id="before"),
        pytest.param("--json a --exclude x work mail", id="around-the-archive"),
        pytest.param("a work --exclude x mail --json", id="between-the-qubes"),
        pytest.param("a work mail --json --exclude x", id="behind"),
        pytest.param("a --exclude=x --json -- work mail", id="with-two-dashes"),
    ],
)
def test_options_on_either_side(words: str) -> None:
    options = parser().parse_args(["restore", *words.split()])
    assert (options.archive, options.qubes) == (Path("a"), ["work", "mail"])
    assert (options.exclude, options.json) == (["x"], True)


def test_all_qubes_with_options_behind() -> None:
    options = parser().parse_args(["restore", "a", "--exclude", "x", "--exclude", "y"])
    assert (options.archive, options.qubes, options.exclude) == (Path("a"), [], ["x", "y"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param("restore", "arguments are required: FILE\n", id="no-archive"),
        pytest.param("restore --json", "arguments are required: FILE\n", id="options-only"),
        pytest.param("restore a --exclude", "--exclude: expected one argument", id="no-value"),
        pytest.param("restore a work --nonsense", "unrecognized arguments: --nonsense", id="unknown"),
        pytest.param("verify a --json b", "unrecognized arguments: b", id="two-archives"),
    ],
)
def test_what_is_wrong(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
