"""The reports of ``tools/bench``: their rows and units. How fast they are is not a test's to say."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tools.benchmarks import alone, core, daemon, delegation, reload, storage
from tools.benchmarks.policy import LIMITS, workload_directory

ROOT = Path(__file__).parents[2]
ONCE = {**os.environ, "BENCH_RUNS": "1"}


def test_the_policy_suite_has_its_rows() -> None:
    if not workload_directory().exists():
        pytest.skip(f"no benchmark workload at {workload_directory()}; set QUBES_CORPORA")
    report = json.loads(subprocess.check_output([ROOT / "tools/bench", "policy"], env=ONCE))
    rows = {row["name"]: row for row in report["results"]}
    limits = LIMITS | delegation.LIMITS
    assert rows.keys() >= {
        *limits,
        *("parse-default", "parse-delegated", "ask-100", "v5-load-10000", "v5-first-decision"),
    }
    for name, row in rows.items():
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["seconds"] / row["yardstick"])
        assert row["limit"] == limits.get(name)


def test_the_broker_suite_has_its_rows() -> None:
    report = json.loads(subprocess.check_output([ROOT / "tools/bench", "broker"], env=ONCE))
    limits = {row["name"]: row["limit"] for row in report["results"]}
    assert limits == {
        "property-get-10": 1.8,
        "property-get-100": 1.8,
        "property-get-1000": 1.8,
        "list-dom0-1000": 6,
        "list-delegated-1000": 10,
        "property-set-1000": None,
        "events-100-listeners-1000": 30,
        "change-100-listeners-1000": None,
    }
    assert all(row["seconds"] > 0 and row["yardstick"] > 0 and row["ratio"] > 0 for row in report["results"])


def test_the_suite_of_the_daemon_alone_has_its_rows() -> None:
    rows = list(alone.measure(10, 50, decisions=200))
    assert [row.name for row in rows] == ["alone-10-50", "alone-single-10-50", "alone-changing-10-50"]
    assert all(row.seconds > 0 and row.yardstick > 0 and row.ratio > 0 for row in rows)


def test_the_daemon_suite_compares_every_answer() -> None:
    row = daemon.measure(10, 50, decisions=200)
    assert (row.name, row.limit) == ("decide-10-50", 2.0)
    assert row.seconds > 0
    assert row.yardstick > 0
    assert row.ratio > 0


def test_the_reload_suite_has_its_rows() -> None:
    rows = {row.name: row for row in reload.run(edits=3)}
    assert rows.keys() == {"reload-daemon-10000", "longest-wait-10000"}
    edit, wait = rows["reload-daemon-10000"], rows["longest-wait-10000"]
    assert (edit.yardstick, edit.limit, wait.limit) == (0.1, 1.0, None)
    assert edit.ratio == pytest.approx(edit.seconds / 0.1)
    assert edit.seconds > 0
    assert wait.seconds > 0


def test_the_core_suite_has_its_rows() -> None:
    rows = {row.name: row for row in core.run(qubes=20, runs=2, starts=1)}
    assert {name: row.limit for name, row in rows.items()} == {
        "property-set-20": 3,
        "create-20": 6,
        "remove-20": 6,
        "set-16-writers": 0.25,
        "start-20": 1,
        "memory-20": 1,
    }
    assert all(row.ratio > 0 and row.yardstick > 0 for row in rows.values())
    memory = rows["memory-20"].row()
    assert memory["yardstick"] == 120_000_000
    assert isinstance(memory["bytes"], int)
    assert memory["bytes"] > 10_000_000


def test_the_storage_suite_has_its_rows() -> None:
    rows = {row.name: row for row in storage.run(size=64 << 20, data=4 << 20, stream=4 << 20, runs=1)}
    limits = {name: row.limit for name, row in rows.items()}
    # The row on XFS is left out where none can be mounted; the suite says so.
    assert {**limits, "clone-10g-xfs": 3} == {
        "clone-10g-sparse": 1.1,
        "clone-10g-xfs": 3,
        "import-1g": 1.25,
        "import-memory": 1,
    }
    assert all(row.ratio > 0 and row.yardstick > 0 for row in rows.values())
