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
    """Break the block off after ``seconds``.

    It is broken off between two steps of Python or in a call that waits; a library that computes for ever
    outside of Python is not. Outside the main thread there is no limit: signals reach no other.

    Raises:
        Overdue: it was broken off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    armed = True

    def ring(number: int, frame: FrameType | None) -> None:
        if armed:
            raise Overdue(f"it took more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # Again and again: the first may fall into a cleaning-up that goes on for ever itself.
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
