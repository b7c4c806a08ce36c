"""A run of one seed on two daemons, and the search for the shortest script that still shows a difference."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.crashing.subject import DAEMON, Subject
from tools.interfering.household import (
    EXPOSED,
    EXPOSED_HIDDEN,
    HIDDEN,
    KEPT,
    SEEN,
    carry_out,
    copy,
    lay_out,
)
from tools.interfering.rounds import subjects
from tools.interfering.rules import RULES, Rules
from tools.interfering.side import Side
from tools.interfering.steps import Step, Where, steps
from tools.interfering.streams import Compared, News
from tools.interfering.words import LAST_DISPOSABLE

CHECK = 50
"""Calls between two looks at the event streams."""
RENEW = 200
"""Calls between two times at which what alice works on is made again."""
ROUND = 1_000
"""Calls between two looks at the statistics, each of which takes some seconds."""
SEARCH = 180.0
"""Seconds that the search for a shorter script may take, about."""

STREAMS = (
    ("admin.Events", "dom0"),
    ("admin.Events", "team-web"),
    ("admin.Events", "alice_work"),
    ("admin.Events", "secret-1"),
    ("admin.Events", "vault"),
    ("admin.Events", LAST_DISPOSABLE),
)


class DaemonError(Exception):
    """A daemon does not start, or broke off."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What alice was told by the one daemon and by the other, after the steps of ``script``."""

    what: str
    one: bytes
    other: bytes
    script: Sequence[Step] = ()


@dataclass(slots=True)
class Report:
    """What a run of one seed came to; ``seconds`` without the search."""

    seed: int
    calls: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    """Answers to alice: ``ok``, ``refused`` by policy, or the kind of error."""
    served: set[str] = field(default_factory=set)
    """Methods that gave alice anything else than a refusal."""
    concealed: int = 0
    concealed_done: int = 0
    events: int = 0
    difference: Difference | None = None


def outcome(answer: bytes) -> str:
    """In a word what an answer is."""
    if answer.startswith(b"2\0"):
        kind, message = answer[2:].split(b"\0\0", 1)
        return "refused" if message.startswith(b"denied by policy") else kind.decode("ascii")
    return "ok" if answer else "closed"


class Campaign:
    """Runs below one scratch folder, with one system made for all of them.

    ``command`` is the daemons' without its options; ``search`` the seconds that a script is made shorter.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] = DAEMON,
        rules: Rules = RULES["dialect"],
        search: float = SEARCH,
    ) -> None:
        self._folder = folder
        self._command = command
        self._rules = rules
        self._search = search
        self._seen = folder / "seen"
        self._runs = 0
        self._compared: dict[tuple[str, str], Compared] = {}
        self._seen.mkdir()
        lay_out(self._seen, rules)
        maker = Subject(self._seen)
        maker.begin()
        try:
            if not maker.ready():
                raise DaemonError(maker.log())
            carry_out(maker.socket, SEEN + KEPT, self._seen)
            maker.stop()
        finally:
            maker.kill()

    def run(self, seed: int, calls: int, progress: Callable[[Report], None] = lambda report: None) -> Report:
        """One seed, up to its first difference, whose script is then as short as it could be made.

        Raises ``DaemonError``.
        """
        report = Report(seed)
        began = time.monotonic()
        script = tuple(steps(seed, calls, self._rules.words))
        found = self._compare(script, report, progress)
        report.seconds = time.monotonic() - began
        report.difference = found and self._shortest(found)
        return report

    def _compare(
        self, script: Sequence[Step], report: Report, progress: Callable[[Report], None] = lambda report: None
    ) -> Difference | None:
        """The first difference of a script, with the steps up to it."""
        self._compared.clear()
        with self._sides() as (one, other):
            found = self._listen(one, other)
            if found is not None:
                return found
            for number, step in enumerate(script):
                found = self._step(step, one, other, report)
                last = number + 1 == len(script)
                if found is None and (step.where is Where.OBSERVED or last):
                    if step.where is Where.OBSERVED:
                        report.calls += 1
                    found = self._look(one, other, report, last)
                    if report.calls % CHECK == 0:
                        progress(report)
                if found is not None:
                    return Difference(found.what, found.one, found.other, script[: number + 1])
            for side in (one, other):
                _stop(side.subject)
        return None

    def _step(self, step: Step, one: Side, other: Side, report: Report) -> Difference | None:
        if step.concealed:
            answer = other.receive(step, other.send(step))
            report.concealed += 1
            report.concealed_done += answer.startswith(b"0\0")
            return None
        sent = [(side, side.send(step)) for side in (one, other)]
        answers = [side.receive(step, connection) for side, connection in sent]
        told = [side.plain(step, answer) for (side, _), answer in zip(sent, answers, strict=True)]
        if step.where is Where.OBSERVED:
            report.answers[outcome(told[0])] += 1
            if outcome(told[0]) != "refused":
                report.served.add(step.service)
        else:
            # Bob may be told more on one of them; that he can do the same is what keeps them alike.
            told = [outcome(answer).encode("ascii") for answer in told]
        if told[0] == told[1]:
            return None
        return Difference(f"the answer to {step}", told[0], told[1])

    def _look(self, one: Side, other: Side, report: Report, last: bool) -> Difference | None:
        """Compare the streams, where it is time, and set up what the calls used up."""
        if report.calls % CHECK and not last:
            return None
        told, told_other = one.news(report.calls), other.news(report.calls)
        for stream in sorted({*told, *told_other}):
            news = told.get(stream, News())
            report.events += len(news.in_turn) + len(news.beside)
            compared = self._compared.setdefault(stream, Compared())
            found = compared.differ(news, told_other.get(stream, News()))
            if found is not None:
                return Difference(f"the events of {' '.join(stream)}", *found)
        if last or report.calls % ROUND == 0:
            rounds = subjects(one), subjects(other)
            if rounds[0] != rounds[1]:
                return Difference("a round of statistics", *rounds)
        for side in (one, other):
            side.tidy()
            if report.calls % RENEW == 0:
                side.dom0(KEPT, lenient=True)
        if report.calls % RENEW == 0:
            other.dom0(HIDDEN, lenient=True)
        return self._listen(one, other)

    def _listen(self, one: Side, other: Side) -> Difference | None:
        for side in (one, other):
            side.meet()
        for stream in STREAMS:
            begun, begun_other = one.listen(*stream), other.listen(*stream)
            if begun != begun_other:
                return Difference(f"the begin of {' '.join(stream)}", begun, begun_other)
        return None

    @contextmanager
    def _sides(self) -> Iterator[tuple[Side, Side]]:
        self._runs += 1
        places = [self._folder / f"{self._runs}-{name}" for name in ("one", "other")]
        one, other = (Side(place, self._command) for place in places)
        try:
            for side in (one, other):
                copy(self._seen, side.root)
                side.begin(EXPOSED if side is one else EXPOSED + EXPOSED_HIDDEN)
            for side in (one, other):
                if not side.ready():
                    raise DaemonError(side.subject.log())
                side.dom0("admin.vm.Start net")
            other.dom0(HIDDEN)
            yield one, other
        except OSError as error:
            raise DaemonError("\n".join((str(error), one.subject.log(), other.subject.log()))) from error
        finally:
            for side in (one, other):
                side.close()
                shutil.rmtree(side.root)

    def _shortest(self, found: Difference) -> Difference:
        """Leave out steps while what is left still differs, until nothing more can go or time is up."""
        deadline = time.monotonic() + self._search
        for length in (20, 80, 320, 1_280):
            if length < len(found.script) and time.monotonic() < deadline:
                shorter = self._compare(found.script[-length:], Report(0))
                if shorter is not None:
                    found = shorter
                    break
        size = len(found.script) // 2
        while size and time.monotonic() < deadline:
            start = 0
            while start < len(found.script) - 1 and time.monotonic() < deadline:
                left = [*found.script[:start], *found.script[start + size :]]
                shorter = self._compare(left, Report(0)) if left else None
                if shorter is None:
                    start += size
                else:
                    found = shorter
            size //= 2
        return found


def _stop(subject: Subject) -> None:
    """End a daemon in order. Raises ``DaemonError`` where it does not end, or has faults in its log."""
    try:
        subject.stop()
    except subprocess.TimeoutExpired as error:
        raise DaemonError(f"{error}\n{subject.log()}") from None
    if "Traceback" in subject.log():
        raise DaemonError(subject.log())
