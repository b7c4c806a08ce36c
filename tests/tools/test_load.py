"""A few seconds of the minutes that ``tools/load`` is for; and what it finds fault with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tools.loading.house import FEWEST
from tools.loading.listening import DEAF, FAST, Stream

ROOT = Path(__file__).parents[2]


def test_a_look(tmp_path: Path) -> None:
    """How fast anybody is served here is not looked at: a machine that runs tests has other things to do."""
    done = subprocess.run(
        [ROOT / "tools/load", "--minutes", "0.08", "--qubes", str(FEWEST), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    assert not [fault for fault in report["faults"] if "p99" not in fault], done.stderr
    assert report["streams"] == 92
    for figure in ("steady_calls", "flood_calls", "large_payloads", "changes"):
        assert report[figure] > 3, report
    assert report["descriptors_most"] > report["descriptors_end"]


def test_a_system_that_is_too_small_is_refused() -> None:
    done = subprocess.run(
        [ROOT / "tools/load", "--qubes", str(FEWEST - 1)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"--qubes: {FEWEST} at least" in done.stderr


@pytest.mark.parametrize(
    ("pace", "closed", "heard", "lost"),
    [
        pytest.param(FAST, False, [1, 2, 3], False, id="all"),
        pytest.param(FAST, False, [1, 2], True, id="the-last-is-missing"),
        pytest.param(FAST, False, [1, 3], True, id="a-gap"),
        pytest.param(DEAF, True, [1, 2], False, id="closed"),
        pytest.param(DEAF, True, [1, 3], True, id="closed-with-a-gap"),
        pytest.param(FAST, False, [2, 1, 3], True, id="out-of-order"),
    ],
)
def test_what_is_lost(pace: str, closed: bool, heard: list[int], lost: bool) -> None:
    assert Stream(Path("none"), pace, heard, closed).lost(3) is lost
