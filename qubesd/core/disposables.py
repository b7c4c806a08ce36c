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

_TRIES = 64
"""Numbers that are drawn before all those that are free are looked for: enough unless hardly any is."""


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
        # The oldest come first.
        while self._given and now - self._given[oldest := next(iter(self._given))] >= RESTED:
            del self._given[oldest]
        used = {qube.dispid for qube in system.qubes.values()}

        def is_free(number: int) -> bool:
            rested = number not in used and number not in self._given
            return rested and f"disp{number}" not in system.qubes and not is_kept(f"disp{number}")

        drawn = (secrets.randbelow(MAX_DISPID + 1) for _ in range(_TRIES))
        number = next(filter(is_free, drawn), None)
        if number is None:
            free = [number for number in range(MAX_DISPID + 1) if is_free(number)]
            if not free:
                raise QubesError("no number is free for another disposable; remove some, or wait")
            number = secrets.choice(free)
        self._given[number] = now
        return number
