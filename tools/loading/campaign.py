"""A quiet while, a loaded one, and what the daemon was like in both."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median, quantiles

from broker.client import call, connect
from tools.benchmarks.broker import channel
from tools.loading.calling import call_steadily
from tools.loading.house import COUNTER, FLOOD, LARGE, SUBJECT, Loaded, loaded
from tools.loading.listening import DEAF, FAST, SLOW, Stream

STEADY = 8
"""Callers whose answers are timed, ten calls a second each."""
PACES = {FAST: 84, SLOW: 4, DEAF: 4}
IDLE = 28
"""Connections that say nothing. With the others, and those of the flood, there are some 200."""

_PAUSE = 0.1
_CHANGES = 0.03
"""Seconds between two changes that listeners hear of."""
_REST = 2.0

MAX_RATIO = 5.0
"""Of a steady caller's p99 under load, to its own in quiet."""
MAX_GROWTH = 64.0
"""MiB that the daemon may have more at the end than when everybody had come."""


@dataclass
class Report:
    """Times in milliseconds, memory in MiB. ``faults`` is empty where all is as it must be."""

    seconds: float = 0.0
    quiet_p50: float = 0.0
    quiet_p99: float = 0.0
    loaded_p50: float = 0.0
    loaded_p99: float = 0.0
    worst_caller_ratio: float = 0.0
    steady_calls: int = 0
    flood_calls: int = 0
    large_payloads: int = 0
    changes: int = 0
    streams: int = 0
    streams_closed: int = 0
    memory_begun: float = 0.0
    memory_most: float = 0.0
    memory_end: float = 0.0
    descriptors_begun: int = 0
    descriptors_most: int = 0
    descriptors_end: int = 0
    faults: list[str] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        return {
            key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()
        }


async def run(root: Path, seconds: float, qubes: int, tell: Callable[[str], None]) -> Report:
    """So many seconds, a fifth of them quiet; ``tell`` is given the progress."""
    with loaded(root, qubes) as daemon, ExitStack() as cleanup:
        report = Report(seconds=seconds)
        empty = daemon.descriptors()
        streams = _streams(daemon)
        stop, monitor = asyncio.Event(), _Monitor(daemon, report)
        opened = [stream.open() for stream in streams]
        following = [
            asyncio.create_task(stream.follow(connection, stop))
            for stream, connection in zip(streams, opened, strict=True)
        ]
        for number in range(IDLE):
            cleanup.enter_context(connect(channel(daemon.config, f"qube-{400 + number}")))
        report.streams = len(streams)
        tell("quiet")
        quiet = await _steady(daemon, seconds / 5)
        report.memory_begun, report.descriptors_begun = daemon.resident(), daemon.descriptors()
        watching = asyncio.create_task(monitor.watch())
        changing = asyncio.create_task(_change(daemon, report, time.monotonic() + seconds * 4 / 5))
        tell("loaded")
        causing = asyncio.create_task(_cause(daemon, seconds * 4 / 5))
        busy = await _steady(daemon, seconds * 4 / 5)
        report.flood_calls, report.large_payloads = await causing
        await changing
        watching.cancel()
        stop.set()
        await asyncio.gather(*following)
        cleanup.close()
        await asyncio.sleep(_REST)
        report.memory_end, report.descriptors_end = daemon.resident(), daemon.descriptors()
        _judge(report, quiet, busy, streams, daemon, empty)
        return report


def _streams(daemon: Loaded) -> list[Stream]:
    paces = [pace for pace, count in PACES.items() for _ in range(count)]
    return [Stream(channel(daemon.config, f"qube-{100 + number}"), pace) for number, pace in enumerate(paces)]


async def _steady(daemon: Loaded, seconds: float) -> list[list[float]]:
    """The times of each steady caller."""
    names = [f"qube-{10 + number}" for number in range(STEADY)]
    return await asyncio.gather(
        *(call_steadily(channel(daemon.config, name), name, _PAUSE, seconds) for name in names)
    )


async def _change(daemon: Loaded, report: Report, end: float) -> None:
    """Count a feature up, which every listener hears of."""
    while time.monotonic() < end:
        report.changes += 1
        await asyncio.to_thread(
            call,
            daemon.config.run_dir / "qubesd.sock",
            "admin.vm.feature.Set",
            SUBJECT,
            COUNTER,
            str(report.changes).encode("ascii"),
        )
        await asyncio.sleep(_CHANGES)


async def _cause(daemon: Loaded, seconds: float) -> tuple[int, int]:
    words = (channel(daemon.config, FLOOD), channel(daemon.config, LARGE), LARGE, seconds)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.loading.causing", *map(str, words)), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    counts = json.loads(said)
    return counts["flood_calls"], counts["large_payloads"]


class _Monitor:
    """Looks at the daemon every second."""

    def __init__(self, daemon: Loaded, report: Report) -> None:
        self._daemon = daemon
        self._report = report

    async def watch(self) -> None:
        """For ever."""
        report = self._report
        while True:
            report.memory_most = max(report.memory_most, self._daemon.resident())
            report.descriptors_most = max(report.descriptors_most, self._daemon.descriptors())
            await asyncio.sleep(1)


def _judge(
    report: Report,
    quiet: list[list[float]],
    busy: list[list[float]],
    streams: list[Stream],
    daemon: Loaded,
    empty: int,
) -> None:
    """Take the figures, and note what is not as it must be."""
    report.quiet_p50, report.quiet_p99 = _milliseconds([*chain.from_iterable(quiet)])
    report.loaded_p50, report.loaded_p99 = _milliseconds([*chain.from_iterable(busy)])
    report.steady_calls = sum(map(len, busy))
    report.worst_caller_ratio = max(_milliseconds(taken)[1] for taken in busy) / report.quiet_p99
    report.streams_closed = sum(stream.closed for stream in streams)
    faults = report.faults
    if report.loaded_p99 > MAX_RATIO * report.quiet_p99:
        faults.append(f"p99 under load is {report.loaded_p99 / report.quiet_p99:.1f} times the quiet one")
    for stream in streams:
        if stream.lost(report.changes):
            faults.append(f"a {stream.pace} stream has not heard all: {stream.gap(report.changes)}")
        if stream.closed and stream.pace == FAST:
            faults.append("a stream that is read at once was closed")
    if report.streams_closed and "does not read its events" not in daemon.messages.read_text():
        faults.append("streams were closed, and the log does not say why")
    if report.memory_end > report.memory_begun + MAX_GROWTH:
        faults.append(f"memory went from {report.memory_begun:.0f} to {report.memory_end:.0f} MiB")
    if report.descriptors_end > empty + 2:
        faults.append(f"{report.descriptors_end} descriptors are open, {empty} were before anybody came")


def _milliseconds(taken: list[float]) -> tuple[float, float]:
    """The median, and what 99 of 100 stay below."""
    return 1000 * median(taken), 1000 * quantiles(taken, n=100)[98]
