"""The report of ``tools/bench policy``: its rows and units. How fast they are is not a test's to say."""

import json
import subprocess
from pathlib import Path

import pytest

from tools.benchmarks.policy import LIMITS, workload_directory

ROOT = Path(__file__).parents[2]


def test_the_policy_suite_has_its_rows() -> None:
    if not workload_directory().exists():
        pytest.skip(f"no benchmark workload at {workload_directory()}; set QUBES_CORPORA")
    report = json.loads(subprocess.check_output([ROOT / "tools/bench", "policy"]))
    rows = {row["name"]: row for row in report["results"]}
    assert rows.keys() >= {*LIMITS, "parse-default", "parse-delegated", "ask-100"}
    for name, row in rows.items():
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["seconds"] / row["yardstick"])
        assert row["limit"] == LIMITS.get(name)
