"""A run of the fuzzer: many connections at once against one daemon, on ground that moves.

After each round everything is let go, and the daemon has to be as it was: alive, with the descriptors that it
began with, and nothing in its log but its own lines.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from tools.fuzzing.cases import Case, Ending, case
from tools.fuzzing.exchange import PATIENCE, exchange, stand_around, wrong
from tools.fuzzing.ground import Ground, Place
from tools.fuzzing.household import QUBESD, Household
from tools.fuzzing.oracle import Meaning, meaning
from tools.fuzzing.subject import Subject, running
from tools.fuzzing.wire import SOCKETS

DAEMON = (sys.executable, "-m", "broker.deciding.daemon")

LANES = 100
"""Connections at once. Too few questions wait at a time for the daemon's bound on them to show."""

CROWD = 1_000
"""Connections that are silent meanwhile."""

FIRST_ROUND, LONGEST_ROUND = 2.0, 30.0
"""Seconds until the daemon is looked at in quiet: short ones first, so that what is plain shows early."""

SETTLE = 5.0
"""Seconds after an edit in which the policy before may still decide. The daemon aims at a tenth of one; the
rest is for machines that are busy otherwise."""

GROWTH = 256 * 1024
"""KiB that the daemon may have grown by since its first quiet moment."""

_QUIET_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be; ``number`` is that of the case, ``grounds`` those that it was judged by."""

    what: str
    number: int | None = None
    case: Case | None = None
    grounds: tuple[int, ...] = ()


@dataclass(slots=True)
class Report:
    """What a run came to; sizes in KiB, times in seconds."""

    seed: int
    seconds: float = 0.0
    cases: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    grounds: int = 0
    fetches: int = 0
    questions: int = 0
    notes: int = 0
    descriptors: int = 0
    descriptors_peak: int = 0
    memory: int = 0
    memory_peak: int = 0
    memory_end: int = 0
    finding: Finding | None = None

    @property
    def sent(self) -> int:
        return self.cases.total()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: ``only`` is the one case to send again, on ground ``ground``; ``swap`` the seconds between
    two grounds, 0 for one that stays."""

    seed: int
    seconds: float
    swap: float = 3.0
    only: int | None = None
    ground: int = 0
    command: Sequence[str] = DAEMON


class Campaign:
    """One run in one scratch folder; ``report`` can be looked at while it goes on."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.report = Report(plan.seed)
        self._plan = plan
        self._folder = folder
        self._place = Place(plan.seed, folder / "run", folder / "etc")
        self._grounds: deque[tuple[float, Ground]] = deque()
        """Each with when it came into force, the newest last; so many as may still decide."""
        self._numbers = count()
        self._household = Household(lambda: self._grounds[-1][1].document)
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End early, in order."""
        self._stopped.set()

    async def run(self) -> Report:
        """Raises ``SubjectError`` where the daemon does not start."""
        plan, began = self._plan, time.monotonic()
        self._grounds.append((began, self._place.lay_out(plan.ground)))
        opened = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            async with (
                self._household.at(self._folder),
                running(self._command(), self._folder / SOCKETS[0]) as subject,
            ):
                await self._rounds(subject, f"/proc/self/fd/{opened}")
                if self.report.finding is not None:
                    # A connection may be lost before it is known that the daemon is.
                    with suppress(TimeoutError):
                        await asyncio.wait_for(subject.process.wait(), 0.5)
            if subject.process.returncode != 0 or subject.startled:
                self._find_death(subject)
        finally:
            os.close(opened)
            self.report.seconds = time.monotonic() - began
            self.report.fetches = self._household.fetches
            self.report.questions = self._household.questions
            self.report.notes = self._household.notes
        return self.report

    def _command(self) -> list[str]:
        places = zip(("--socket-path", "--eval-socket-path", "--gui-socket-path"), SOCKETS, strict=True)
        return [
            *self._plan.command,
            *("--policy-path", str(self._place.runtime), "--policy-path", str(self._place.configured)),
            *(word for option, name in places for word in (option, str(self._folder / name))),
            *("--agent-path", str(self._folder), "--qubesd-socket-path", str(self._folder / QUBESD)),
        ]

    async def _rounds(self, subject: Subject, address: str) -> None:
        report, plan = self.report, self._plan
        if plan.only is not None:
            await self._send(address, plan.only)
            return
        # Whatever the daemon opens once and keeps is open after this.
        for _ in range(LANES):
            await self._send(address, next(self._numbers))
        report.descriptors = report.descriptors_peak = await self._settled(subject)
        report.memory = report.memory_peak = subject.memory()
        length, deadline = FIRST_ROUND, time.monotonic() + plan.seconds
        while not self._stopped.is_set() and time.monotonic() < deadline:
            until = min(deadline, time.monotonic() + length)
            length = min(2 * length, LONGEST_ROUND)
            beside = [
                asyncio.create_task(task)
                for task in (self._watch(subject), self._move(), self._stand_around(address))
            ]
            lanes = [asyncio.create_task(self._lane(address, until)) for _ in range(LANES)]
            try:
                await asyncio.gather(*lanes)
            finally:
                for task in (*lanes, *beside):
                    task.cancel()
                ended = await asyncio.gather(*lanes, *beside, return_exceptions=True)
            for error in ended:
                if isinstance(error, Exception):
                    raise error
            await self._look(subject)

    async def _lane(self, address: str, until: float) -> None:
        while not self._stopped.is_set() and time.monotonic() < until:
            await self._send(address, next(self._numbers))

    async def _stand_around(self, address: str) -> None:
        """Be many who say half of something and then nothing, until cancelled."""
        try:
            await stand_around(address, CROWD)
        except OSError as error:
            self._find(Finding(f"the daemon takes no connection: {error}"))

    async def _send(self, address: str, number: int) -> None:
        """One case, judged."""
        it = case(self._plan.seed, number)
        asks = meaning(it)
        began = time.monotonic()
        try:
            outcome = await exchange(address, it, asks)
        except OSError as error:
            self._find(Finding(f"the daemon takes no connection: {error}", number, it))
            return
        self.report.cases[it.kind] += 1
        self.report.outcomes[_sort(it, asks, outcome.data)] += 1
        grounds = self._since(began)
        fault = wrong(it, asks, outcome, grounds)
        if fault is not None:
            self._find(Finding(fault, number, it, tuple({ground.number for ground in grounds})))

    def _since(self, began: float) -> list[Ground]:
        """What the daemon may have decided by since then: any policy that was in force, with any of the qubes
        of that time."""
        policies: list[Ground] = []
        qubes: list[Ground] = []
        end = float("inf")
        for since, ground in reversed(self._grounds):
            if end + SETTLE < began:
                break
            policies.append(ground)
            if end >= began:
                qubes.append(ground)
            end = since
        return [other.judged_by(one) for one in policies for other in qubes]

    async def _move(self) -> None:
        """Swap the ground from time to time."""
        while self._plan.swap:
            await asyncio.sleep(self._plan.swap)
            ground = self._place.move_on(self._grounds[-1][1].number + 1)
            self._grounds.append((time.monotonic(), ground))
            self.report.grounds += 1
            while self._grounds[1][0] + SETTLE + 2 * PATIENCE < time.monotonic():
                self._grounds.popleft()

    async def _watch(self, subject: Subject) -> None:
        """Look at the daemon's size while it works."""
        report = self.report
        while subject.running and not subject.startled:
            report.descriptors_peak = max(report.descriptors_peak, subject.descriptors())
            report.memory_peak = max(report.memory_peak, subject.memory())
            await asyncio.sleep(0.25)
        self._find_death(subject)

    async def _settled(self, subject: Subject) -> int:
        """The fewest descriptors of half a second, in which everything that was begun has ended."""
        fewest = subject.descriptors()
        for _ in range(10):
            await asyncio.sleep(0.05)
            fewest = min(fewest, subject.descriptors())
        return fewest

    async def _look(self, subject: Subject) -> None:
        """Everything is let go: the daemon has to be as it was."""
        report, deadline = self.report, time.monotonic() + _QUIET_LIMIT
        if not subject.running or subject.startled:
            self._find_death(subject)
            return
        while (now := subject.descriptors()) > report.descriptors:
            if time.monotonic() > deadline:
                held = [os.readlink(entry) for entry in Path(f"/proc/{subject.process.pid}/fd").iterdir()]
                self._find(
                    Finding(f"{now} descriptors are open where {report.descriptors} were: {sorted(held)}")
                )
                return
            await asyncio.sleep(0.05)
        report.memory_end = subject.memory()
        if report.memory_end > report.memory + GROWTH:
            self._find(Finding(f"grown from {report.memory} KiB to {report.memory_end} KiB"))
        for fault in self._household.faults:
            self._find(Finding(fault))

    def _find_death(self, subject: Subject) -> None:
        """The daemon is gone or frightened, which says more than what a client saw of it."""
        before = self.report.finding or Finding("")
        if subject.startled:
            what = f"this should not be in its log:\n{subject.startled}"
        else:
            what = f"the daemon ended with status {subject.process.returncode}"
            what += f"; it said last:\n{subject.last_words()}"
        self.report.finding = replace(before, what=what)
        self.stop()

    def _find(self, finding: Finding) -> None:
        """Keep the first finding, and end."""
        if self.report.finding is None:
            self.report.finding = finding
        self.stop()


def _sort(it: Case, asks: Meaning, data: bytes) -> str:
    if it.ending is Ending.CLOSE or not asks.whole:
        return "not waited for"
    if not data:
        return "closed without a byte"
    return "allow" if b"result=allow" in data else "deny"
