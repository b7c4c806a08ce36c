"""A limit of time on code that is not ours and runs in the daemon's only thread."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LAST = 4
"""Times that code is broken off; it has caught all of the others."""


class Overdue(BaseException):
    """The code has had its time. Not an ``Exception``, so that what catches those does not go on."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """What ``call`` returns, broken off after ``seconds``. What runs within another limit does not use up the
    time of that.

    It is broken off between two steps of Python or in a call that waits, and what catches that, again each
    ``seconds``. Where it goes on all the same, the process is aborted: nobody else is served meanwhile. A
    library that computes for ever outside of Python is left to who watches over the process. Outside the main
    thread there is no limit: signals reach no other.

    Raises:
        Overdue: its time was up before it ended, however it did.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    here, ended, rings = sys._getframe(), False, 0

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal rings
        if ended:
            return
        rings += 1
        if rings > _LAST:
            _log.critical("what was broken off %d times goes on, so the daemon ends", _LAST)
            os.abort()
        if frame is not here:  # else it has just ended by itself
            raise _overdue(seconds)

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: the first may fall into a cleaning-up that goes on for ever itself.
    rest = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        return call()
    finally:
        ended = True
        signal.setitimer(signal.ITIMER_REAL, *rest)
        signal.signal(signal.SIGALRM, before)
        if rings:
            raise _overdue(seconds)


def _overdue(seconds: float) -> Overdue:
    return Overdue(f"it took more than {seconds:g} seconds")
