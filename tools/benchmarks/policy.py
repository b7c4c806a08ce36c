"""The engine's speed, on policies and systems of a shared workload, in units of a dictionary look-up.

Decisions are measured from the building of the request on, with policy and world loaded. From one decision
to the next nothing is remembered but the index of the policy.
"""

import gzip
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from policy_engine import DirectorySource, Loader, Policy, Request, World, decide, visible
from tools.benchmarks.yardstick import RUNS, Result, lookup_seconds, median_seconds, result

LIMITS = {
    "first-rule": 30,
    "admin-property-get": 30,
    "miss-10000": 30,
    "list-filter-1000": 1_500,
    "ask-1000": 3_000,
    "load-10000": 2_200_000,
    "reload-10000": 220_000,
}
"""The most that a row may take, in look-ups."""

_NAMES = {"parse-10000": "load-10000"}


def workload_directory() -> Path:
    """Where the workload is: ``$QUBES_CORPORA``, or ``shared/corpora`` beside the repository."""
    corpora = os.environ.get("QUBES_CORPORA")
    root = Path(corpora) if corpora else Path(__file__).resolve().parents[3] / "shared" / "corpora"
    return root / "policy-bench"


def run() -> list[Result]:
    """Every scenario of the workload. Raises ``OSError`` if there is no workload."""
    workload = workload_directory()
    yardstick = lookup_seconds()
    results = []
    for scenario in _read(workload / "workload.json")["scenarios"]:
        name = _NAMES.get(scenario["name"], scenario["name"])
        files = _read(workload / scenario["tree"])["files"]
        with tempfile.TemporaryDirectory() as root:
            tree = _Tree(Path(root), files)
            if scenario["kind"] == "parse":
                results.append((name, median_seconds(tree.load, passes=1)))
                if name == "load-10000":
                    results.append(("reload-10000", _reload_seconds(tree)))
            else:
                world = World.from_system_info(_read(workload / scenario["system"]))
                results.append((name, _evaluate_seconds(tree.load(), world, scenario["requests"])))
    return [result(name, seconds, yardstick, LIMITS.get(name)) for name, seconds in results]


class _Tree:
    """A tree of policy files, laid out below a scratch directory."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.directories = [root / "run/qubes/policy.d", root / "etc/qubes/policy.d"]
        self.legacy = root / "etc/qubes-rpc/policy"
        for directory in (*self.directories, self.legacy):
            directory.mkdir(parents=True)
        self.files = [root / path.lstrip("/") for path in files]
        for path, text in zip(self.files, files.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def load(self) -> Policy:
        return self.loader().load()

    def loader(self) -> Loader:
        return Loader(DirectorySource(), [str(path) for path in self.directories], str(self.legacy))


def _reload_seconds(tree: _Tree) -> float:
    """The time to load again after an edit to the middle file; the edit itself is not counted."""
    loader = tree.loader()
    loader.load()
    edited = tree.files[len(tree.files) // 2]
    times = []
    for number in range(RUNS):
        with edited.open("a") as file:
            file.write(f"bench.Edit{number} * @anyvm @anyvm deny\n")
        times.append(median_seconds(loader.load, passes=1, runs=1))
    return statistics.median(times)


def _evaluate_seconds(policy: Policy, world: World, requests: list[dict[str, str]]) -> float:
    """The time of one pass over the requests."""
    calls = [(call["service_and_arg"], call["source"], call["intended_target"]) for call in requests]
    if len(calls) == 1:
        service_and_argument, source, target = calls[0]

        def thousand_decisions() -> None:
            for _ in range(1_000):
                decide(policy, Request.of(service_and_argument, source, target), world)

        return median_seconds(thousand_decisions, passes=10) / 1_000
    # One list for all targets is what the daemon makes of such a pass.
    ((service_and_argument, source),) = {call[:2] for call in calls}
    service, _, argument = service_and_argument.partition("+")
    return median_seconds(lambda: visible(policy, world, source, service, "+" + argument), passes=50)


def _read(path: Path) -> Any:
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
