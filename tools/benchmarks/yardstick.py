"""How long things take, compared with something else on the same machine at the same time."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

RUNS = int(os.environ.get("BENCH_RUNS", "9"))
"""Timed runs of a scenario, of which the median counts; ``BENCH_RUNS=1`` is for who wants the rows soon."""


@dataclass(frozen=True, slots=True)
class Result:
    """One row of a suite.

    Attributes:
        seconds: median time of one pass.
        yardstick: seconds of what the suite compares with, taken in the same run.
        ratio: the first by the second; comparable between machines, where seconds are not.
        limit: the ratio that the project allows itself; ``None`` if the row is for information.
    """

    name: str
    seconds: float
    yardstick: float
    ratio: float
    limit: float | None = None

    def row(self) -> dict[str, object]:
        """As an object of the report."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Size:
    """One row about memory: ``bytes`` held, and as ``yardstick`` those that the project allows itself."""

    name: str
    bytes: int
    yardstick: int
    ratio: float
    limit: float | None = None

    def row(self) -> dict[str, object]:
        """As an object of the report."""
        return asdict(self)


def result(name: str, seconds: float, yardstick: float, limit: float | None = None) -> Result:
    """The row for a time and its yardstick, both in seconds."""
    return Result(name, seconds, yardstick, seconds / yardstick, limit)


def median_seconds(once: Callable[[], object], passes: int, runs: int = RUNS) -> float:
    """Seconds of one call of ``once``: the median over ``runs`` of the mean over ``passes``."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        for _ in range(passes):
            once()
        times.append((time.perf_counter() - started) / passes)
    return statistics.median(times)


def lookup_seconds() -> float:
    """The yardstick K: one look-up, by a freshly built tuple of four strings, in a dict of 10,000.

    All of the dict is asked for in turn; the same key again and again would measure a cache line.
    """
    table = {(f"service{n}", f"+argument{n % 7}", f"source{n % 100}", "target"): n for n in range(10_000)}
    keys = list(table)

    def look_up_all() -> None:
        for service, argument, source, target in keys:
            table[service, argument, source, target]

    return median_seconds(look_up_all, passes=5) / len(keys)
