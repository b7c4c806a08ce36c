"""A limit of time on code that is not ours and runs in the daemon's only thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Overdue(BaseException):
    """The code has had its time. Not an ``Exception``, so that what catches those does not go on."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Break the block off after ``seconds``. What runs within another limit does not use up the time of that.

    It is broken off between two steps of Python or in a call that waits; a library that computes for ever
    outside of Python is not, nor is what catches everything and goes on, which is overdue when it ends.
    Outside the main thread there is no limit: signals reach no other.

    Raises:
        Overdue: its time was up before it ended, however it did.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    armed, rang, overdue = True, False, Overdue(f"it took more than {seconds:g} seconds")

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal rang
        if armed:
            rang = True
            raise overdue

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: the first may fall into a cleaning-up that goes on for ever itself.
    rest = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, *rest)
        signal.signal(signal.SIGALRM, before)
        if rang:
            raise overdue
