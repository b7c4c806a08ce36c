"""The sleep of the host: every qube is suspended before it, and after it those that were awake go on
(``spec/wire-protocol.md`` 7.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable

from qubesd.core import folders
from qubesd.core.keeper import Keeper
from qubesd.core.power import Power
from qubesd.core.preloading import Preloading
from qubesd.errors import NoSuchQube, QubeNotStarted, QubesError
from qubesd.model.state import Qube

_AWAKE = ("Running", "Transient", "Halting")
_ASLEEP = ("Paused", "Suspended")
_PATIENCE = 60.0
"""Seconds that the host's sleep waits for what else is being done with a qube, such as a start that waits for
a guest that does not answer."""


class Sleep:
    """Suspends and resumes one keeper's qubes. Who slept before is kept in a file of this boot of the host,
    for the daemon that resumes may be another one."""

    def __init__(
        self, keeper: Keeper, power: Power, preloading: Preloading, patience: float = _PATIENCE
    ) -> None:
        """``patience`` is in seconds."""
        self._patience = patience
        self._power = power
        self._preloading = preloading
        self._keeper = keeper
        self._list = keeper.config.run_dir / "qubes/previously-paused.list"
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        """Tell the guests and suspend every running qube; none that was made ahead waits any more.

        Raises:
            QubesError: some could not be suspended, which the text names. The others are.
        """
        await self._power.lives.finish(self._begin())

    async def end(self) -> None:
        """Resume what ``begin`` suspended, tell the guests, and make disposables ahead again.

        Raises:
            QubesError: some could not be resumed, which the text names. The others are.
        """
        await self._power.lives.finish(self._end())

    async def _begin(self) -> None:
        async with self._lock:
            await self._preloading.withdraw()
            kept = self._remember()
            await self._power.guests.tell(self._now(_AWAKE, kept), "qubes.SuspendPreAll")
            # Anew: guests have a minute, in which others may have started.
            await self._all(self._power.suspend, self._now(_AWAKE, kept), "suspended")

    async def _end(self) -> None:
        async with self._lock:
            kept = self._remembered()
            try:
                await self._all(self._power.resume, self._now(_ASLEEP, kept), "resumed")
            finally:
                await self._power.guests.tell(self._now(_AWAKE, kept), "qubes.SuspendPostAll")
                self._list.unlink(missing_ok=True)
                self._preloading.go_on()

    def _now(self, states: Iterable[str], kept: Collection[str] = ()) -> list[Qube]:
        """The qubes in one of these states, without those that are kept as they are."""
        return [
            qube
            for qube in self._power.lives.active()
            if self._keeper.running(qube.name).state in states and qube.name not in kept
        ]

    def _remember(self) -> frozenset[str]:
        """Who sleeps already. A list that is there is of a beginning that failed half-way: those that it
        suspended are none that slept before."""
        if not self._list.exists():
            names = sorted(qube.name for qube in self._now(_ASLEEP))
            folders.write(self._list, "".join(f"{name}\n" for name in names).encode("ascii"))
        return self._remembered()

    def _remembered(self) -> frozenset[str]:
        return frozenset((folders.read(self._list) or b"").decode("ascii").split())

    async def _all(self, verb: Callable[[Qube], Awaitable[None]], qubes: Iterable[Qube], done: str) -> None:
        """Do it to all at once, and say which could not be. One that has stopped meanwhile needs it no
        more."""
        qubes = list(qubes)
        outcomes = await asyncio.gather(*(self._to(verb, qube) for qube in qubes), return_exceptions=True)
        failures = []
        for qube, outcome in zip(qubes, outcomes, strict=True):
            if isinstance(outcome, QubesError):
                if not isinstance(outcome, QubeNotStarted | NoSuchQube):
                    failures.append(f"{qube.name!r}: {outcome}")
            elif outcome is not None:
                raise outcome
        if failures:
            raise QubesError(f"not {done}: {'; '.join(failures)}")

    async def _to(self, verb: Callable[[Qube], Awaitable[None]], qube: Qube) -> None:
        """Do it to one qube as soon as nothing else is done with it; ``QubesError`` where that lasts too
        long."""
        try:
            async with asyncio.timeout(self._patience), self._power.lives.run(qube).lock:
                pass
        except TimeoutError:
            raise QubesError(f"it was busy for {self._patience:g} seconds, perhaps with its start") from None
        await verb(qube)
