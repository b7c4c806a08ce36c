"""Turns of those who may ask at any pace: one request of a qube at a time, and a rest after each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from qubesd.core.keeper import Keeper
from qubesd.model.state import Qube

REST = 0.25
"""Seconds from the end of a request to the next one of the same qube."""


@dataclass(slots=True, eq=False)
class _Turn:
    """``free`` is the time of the loop from which on the next request may begin."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    free: float = 0.0


class Turns:
    """The turns of one keeper's qubes. ``rest`` is in seconds."""

    def __init__(self, keeper: Keeper, rest: float = REST) -> None:
        self._keeper = keeper
        self._rest = rest
        self._turns: dict[str, _Turn] = {}

    @property
    def known(self) -> int:
        """Of how many qubes anything is kept."""
        return len(self._turns)

    @asynccontextmanager
    async def of(self, qube: Qube) -> AsyncIterator[None]:
        """Inside, no other request of the qube is carried out; begins when it has rested."""
        self._forget_gone()
        turn = self._turns.setdefault(qube.uuid, _Turn())
        loop = asyncio.get_running_loop()
        async with turn.lock:
            if turn.free > loop.time():
                await asyncio.sleep(turn.free - loop.time())
            try:
                yield
            finally:
                turn.free = loop.time() + self._rest

    def _forget_gone(self) -> None:
        there = self._keeper.system.by_uuid
        if len(self._turns) > 2 * len(there) + 100:
            self._turns = {uuid: turn for uuid, turn in self._turns.items() if uuid in there}
