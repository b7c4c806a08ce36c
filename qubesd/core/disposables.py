"""The numbers of disposables: drawn at random, and not given again soon, since a name may still be in use
elsewhere (a log, a window, a rule) after its qube is gone."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from qubesd.errors import QubesError
from qubesd.model.names import MAX_DISPID
from qubesd.model.state import System

RESTED = 7 * 24 * 3600.0
"""Seconds that a number rests after it was given (``spec/domains.md`` 2)."""


class Numbers:
    """The numbers that this run of the daemon has given; ``clock`` counts seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._given: dict[int, float] = {}

    def draw(self, system: System, is_kept: Callable[[str], bool]) -> int:
        """A number that no qube has, as dispid or in the name ``dispN``, and that has rested.

        Args:
            is_kept: of a name that no new qube may get.

        Raises:
            QubesError: there is none.
        """
        now = self._clock()
        self._given = {number: when for number, when in self._given.items() if now - when < RESTED}
        used = {qube.dispid for qube in system.qubes.values()}
        free = [
            number
            for number in range(MAX_DISPID + 1)
            if number not in used and number not in self._given and f"disp{number}" not in system.qubes
        ]
        while free:
            number = free.pop(secrets.randbelow(len(free)))
            if not is_kept(f"disp{number}"):
                self._given[number] = now
                return number
        raise QubesError("no number is free for another disposable; remove some, or wait")
