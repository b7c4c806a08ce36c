"""Changes that are on the disk when they are answered, on a system of a thousand qubes.

Beside each stands W: one file as large as ``qubes.xml`` that is written, synced and renamed. A change cannot
be had for less; what is above W is ours. The qubes are made by calls, so they have all that a qube has.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from broker.client import call
from broker.root import furnish
from qubesd.config import Config, rooted
from qubesd.store.file import FileStore
from qubesd.store.fresh import POOL, fresh_system
from tools.benchmarks.broker import wait_for, write_policy
from tools.benchmarks.yardstick import Result, Size

QUBES = 1_000
RUNS = 21
PASSES = 5
WRITERS = 16
STARTS = 5
LIMITS = {
    "property-set": 3.0,
    "create": 6.0,
    "remove": 6.0,
    "set-16-writers": 0.25,
    "start": 1.0,
    "memory": 1.0,
}
"""In W, but ``set-16-writers``: at least four times the rate of one writer."""
START = 1.5
"""Seconds from the start of the process to its first reply."""
MEMORY = 120_000_000
"""Bytes of memory that the daemon may hold."""

_WAIT = 60.0


def run(qubes: int = QUBES, runs: int = RUNS, starts: int = STARTS) -> list[Result | Size]:
    """Every row."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config = rooted(Path(folder) / "root")
        _prepare(config)
        with _daemon(config):
            _populate(config, qubes)
        begun = [_start_seconds(config) for _ in range(starts)]
        with _daemon(config) as daemon:
            changes = _changes(config, Path(folder), runs)
            writers = _writers(config, runs)
            memory = _resident(daemon.pid)
    start = statistics.median(begun)
    return [
        *(_row(name, qubes, taken, changes["write"]) for name, taken in changes.items() if name != "write"),
        _row("set-16-writers", None, *writers),
        Result(f"start-{qubes}", start, START, start / START, LIMITS["start"]),
        Size(f"memory-{qubes}", memory, MEMORY, memory / MEMORY, LIMITS["memory"]),
    ]


def _row(name: str, qubes: int | None, ours: Sequence[float], beside: Sequence[float]) -> Result:
    """Medians over alternating runs, and the median of the ratios of neighbours."""
    ratio = statistics.median(one / other for one, other in zip(ours, beside, strict=True))
    full_name = name if qubes is None else f"{name}-{qubes}"
    return Result(full_name, statistics.median(ours), statistics.median(beside), ratio, LIMITS[name])


def _prepare(config: Config) -> None:
    """An empty system with one kernel in name, and the policy of the other suites."""
    write_policy(config.policy_dir)
    furnish(config)
    kernel = config.kernels_dir / "6.1" / "vmlinuz"
    kernel.parent.mkdir(parents=True)
    kernel.touch()
    system = fresh_system(config.qubes_dir, config.kernels_dir).with_property("default_pool", POOL)
    store = FileStore(config.store)
    store.save(system.with_property("default_kernel", "6.1"))
    store.close()


def _populate(config: Config, qubes: int) -> None:
    """A template and AppVMs of it, with properties, features and tags as qubes in use have them."""
    path = config.run_dir / "qubesd.sock"
    call(path, "admin.vm.Create.TemplateVM", payload=b"name=template label=black")

    def make(number: int) -> None:
        name = f"qube-{number}"
        _create(path, name)
        call(path, "admin.vm.property.Set", name, "memory", b"500")
        call(path, "admin.vm.feature.Set", name, "menu-items", b"browser.desktop files.desktop")
        call(path, "admin.vm.tag.Set", name, f"managed-by-{number % 10}")

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(make, range(qubes - 2)))


def _create(path: Path, name: str) -> None:
    call(path, "admin.vm.Create.AppVM", "dom0", "template", f"name={name} label=red".encode("ascii"))


def _changes(config: Config, folder: Path, runs: int) -> dict[str, list[float]]:
    """Seconds of one change of each kind and of one bare write, run by run."""
    path = config.run_dir / "qubesd.sock"
    content = config.store.read_bytes()

    def set_property(number: int) -> None:
        call(path, "admin.vm.property.Set", "qube-1", "memory", str(400 + number % 100).encode("ascii"))

    def write(number: int) -> None:
        with (folder / "beside.new").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (folder / "beside.new").replace(folder / "beside")

    kinds: dict[str, Callable[[int], None]] = {
        "property-set": set_property,
        "create": lambda number: _create(path, f"new-{number % PASSES}"),
        "remove": lambda number: _remove(path, f"new-{number % PASSES}"),
        "write": write,
    }
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(runs + 1):
        for kind, once in kinds.items():
            started = time.perf_counter()
            for number in range(turn * PASSES, (turn + 1) * PASSES):
                once(number)
            taken[kind].append((time.perf_counter() - started) / PASSES)
    # The first run only warms up.
    return {kind: times[1:] for kind, times in taken.items()}


def _remove(path: Path, name: str) -> None:
    call(path, "admin.vm.Remove", name)


def _writers(config: Config, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of one change where sixteen make them at once, and where one makes them, run by run."""
    path = config.run_dir / "qubesd.sock"

    def one_writer(writer: int, first: int, calls: int = PASSES) -> None:
        for number in range(first, first + calls):
            value = str(400 + number % 100).encode("ascii")
            call(path, "admin.vm.property.Set", f"qube-{writer}", "memory", value)

    times: tuple[list[float], list[float]] = ([], [])
    with ThreadPoolExecutor(WRITERS) as writers:
        for turn in range(runs + 1):
            started = time.perf_counter()
            list(writers.map(one_writer, range(WRITERS), [turn * PASSES] * WRITERS))
            between = time.perf_counter()
            one_writer(0, turn * PASSES + 50, 2 * PASSES)
            times[0].append((between - started) / (PASSES * WRITERS))
            times[1].append((time.perf_counter() - between) / (2 * PASSES))
    return times[0][1:], times[1][1:]


@contextmanager
def _daemon(config: Config) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that answers, ended cleanly."""
    root = config.qubes_dir.parents[2]
    command = [sys.executable, "-m", "broker.daemon", "--root", str(root)]
    daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(config.run_dir / "qubesd.sock")
        yield daemon
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(_WAIT)


def _start_seconds(config: Config) -> float:
    """Seconds from the start of a daemon's process to its first reply."""
    started = time.perf_counter()
    with _daemon(config):
        call(config.run_dir / "qubesd.sock", "admin.vm.property.Get", "qube-1", "memory")
        return time.perf_counter() - started


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
