"""One line of JSON for each call: who, what, what was decided and by which rule, how long it took, how it
ended.

Never the payload. Whatever a caller can choose is escaped and cut, so that a line is a line and a terminal
that shows it is safe (QSB-087). A call is answered after its line is in the file; files are put aside by
size and by age.

A full disk does not stop the calls, which have been carried out by then: the log of the daemon says that the
audit stands still, lines wait in memory up to a bound, and when it goes on a line tells how many were lost.
"""

from __future__ import annotations

import calendar
import logging
import math
import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import NamedTuple

from broker.call_id import CALL
from broker.judge import Verdict
from broker.put_aside import DAY, PutAside
from policy_engine import Request

_log = logging.getLogger(__name__)

_ADMIN = ("admin.", "policy.")

MAX_TEXT = 256
"""Characters of one text in a record; what is longer is cut and ends in ``...``."""

MAX_WAITING = 4 * 1024 * 1024
"""Bytes of records that wait in memory while the file takes none."""


_SLICES = 4
"""Files in which the days are kept, so that records can go a part at a time."""


class Record(NamedTuple):
    """One call.

    ``id`` is the caller's count of its own calls since the daemon started, which a denial tells the caller; 0
    where the call did not get here, since the qrexec daemon was told to refuse it. ``call`` is the daemon's
    count of all calls, which the lines of its log carry.
    ``decision`` is ``allow``, ``ask``, ``deny`` or ``unjudged`` (dom0); ``reason`` says more, for people;
    ``rule`` is ``FILE:LINE`` of the deciding one, empty for none. ``outcome`` is ``ok``, ``denied``,
    ``stream`` (the call opened one), ``broken`` (an error inside, see the daemon's log) or the class of the
    error on the wire. ``started`` is in seconds since the epoch, ``duration`` in seconds to the answer.
    """

    started: float
    id: int
    caller: str
    service: str
    argument: str
    target: str
    decision: str
    reason: str
    rule: str
    duration: float
    outcome: str
    call: int = 0

    def line(self) -> str:
        line = (
            f'{{"time": "{_clock(self.started)}", "call": {self.call}, "id": {self.id}, '
            f'"caller": {_text(self.caller)}, "service": {_text(self.service)}, '
            f'"argument": {_text(self.argument)}, "target": {_text(self.target)}, '
            f'"decision": "{self.decision}", "reason": {_text(self.reason)}, "rule": {_text(self.rule)}, '
            f'"duration": {self.duration:.6f}, "outcome": "{self.outcome}"}}\n'
        )
        # JSON lets DEL through, which a terminal may take for a control character.
        return line.replace("\x7f", "\\u007f")


class AuditLog:
    """The file. Raises ``OSError`` where it cannot be opened: a daemon that cannot say what it does does not
    start.

    Args:
        max_bytes: of one file; then it is put aside.
        kept: how many that were put aside are kept.
        days: records that are older go, with a quarter more at the most; 0 for never.
    """

    def __init__(self, path: Path, max_bytes: int, kept: int, days: int = 0) -> None:
        self.count: Callable[[Record], None] = _uncounted
        """Told of every call."""
        self.lost = 0
        """Records that were lost since the start."""
        self.stalled = False
        """Whether the disk takes no more."""
        self._path = path
        self._max_bytes = max_bytes
        self._slice = days * DAY / _SLICES
        self._aside = PutAside(path, kept, days)
        self._aside.expire(time.time())
        self._waiting = bytearray(_end_of_line(path))
        self._lost = 0
        self._file = _opened(path)
        self._size = os.fstat(self._file).st_size
        self._ends = self._begun() + self._slice if days else math.inf

    @property
    def waiting(self) -> int:
        """Bytes of records that are not in the file yet."""
        return len(self._waiting)

    def write(self, record: Record) -> None:
        """Put the record into the file, or have it wait where the disk takes no more; never raises."""
        self.count(record)
        self._put(record)

    def refused(self, request: Request, verdict: Verdict) -> None:
        """Record a call of the Admin API or about the policy that ended at the qrexec daemon, by our word.

        One that was allowed comes here and is recorded then; on other services the log of the daemon tells.
        """
        if not request.service.startswith(_ADMIN):
            return
        reason = verdict.reason
        if request.requested_source:
            reason += f", called for {request.requested_source!r}"
        called = request.service, request.argument.removeprefix("+"), request.target
        self._put(
            Record(
                time.time(),
                0,
                request.source,
                *called,
                verdict.decision,
                reason,
                verdict.place,
                0.0,
                "denied",
                CALL.get(),
            )
        )

    def _put(self, record: Record) -> None:
        line = record.line().encode("ascii")
        if len(self._waiting) + len(line) > MAX_WAITING:
            self._lost += 1
            self.lost += 1
        else:
            self._waiting += line
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as the disk takes it."""
        try:
            if not self.stalled and self._size and self._is_full():
                self._put_aside()
            self._drain()
        except OSError as error:
            if not self.stalled:
                _log.error("%s: the audit stands still: %s; free some space", self._path, error.strerror)
            self.stalled = True
            return
        if self.stalled:
            self.stalled = False
            _log.warning("%s: the audit goes on", self._path)
        if self._lost:
            self._waiting += f'{{"time": "{_clock(time.time())}", "lost": {self._lost}}}\n'.encode("ascii")
            self._lost = 0
            self.flush()

    def close(self) -> None:
        """Write what waits and close the file; says how much was lost, if any was."""
        self.flush()
        left = self._waiting.count(b"\n") + self._lost
        if left:
            _log.error("%s: %d audit records are lost", self._path, left)
        self._aside.wait()
        os.close(self._file)

    def _is_full(self) -> bool:
        return self._size + len(self._waiting) > self._max_bytes or time.time() > self._ends

    def _begun(self) -> float:
        """When the file was begun, in seconds of the epoch, by its first record."""
        with self._path.open("rb") as file:
            found = re.match(rb'\{"time": "([0-9T:-]{19})\.', file.read(64))
        if found is None:
            return time.time()
        return calendar.timegm(time.strptime(found[1].decode("ascii"), "%Y-%m-%dT%H:%M:%S"))

    def _drain(self) -> None:
        while self._waiting:
            written = os.write(self._file, self._waiting)
            self._size += written
            del self._waiting[:written]

    def _put_aside(self) -> None:
        # The new one is there first: on a full disk the records go on waiting for the old one.
        unfinished = self._path.with_name(f"{self._path.name}.new")
        fresh = _opened(unfinished)
        try:
            self._aside.take()
            unfinished.replace(self._path)
        except OSError:
            os.close(fresh)
            raise
        os.close(self._file)
        self._file = fresh
        self._size = 0
        self._waiting = self._waiting.lstrip(b"\n")  # that was for the file before
        self._aside.pack()
        if self._slice:
            self._ends = time.time() + self._slice
            self._aside.expire(time.time())


def _end_of_line(path: Path) -> bytes:
    """What is missing at the end of a file whose writer was killed when the disk had no room for a whole
    record, so that the next one has a line of its own."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return b"" if file.read(1) == b"\n" else b"\n"
    except OSError:  # there is none, or nothing in it
        return b""


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)


def _uncounted(record: Record) -> None:
    """Until somebody wants to know."""


def _text(untrusted_text: str) -> str:
    """A JSON string."""
    if len(untrusted_text) > MAX_TEXT:
        untrusted_text = untrusted_text[: MAX_TEXT - 3] + "..."
    return encode_basestring_ascii(untrusted_text)


def _clock(moment: float) -> str:
    """UTC in milliseconds, such as ``2026-01-31T12:00:00.250Z``."""
    seconds = int(moment)
    return f"{_clock_second(seconds)}.{int((moment - seconds) * 1000):03d}Z"


@lru_cache(maxsize=1)
def _clock_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
