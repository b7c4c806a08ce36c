"""What the running qubes use, sampled once for all who watch (``spec/admin-calls.md`` 2.9).

While nobody watches nothing is sampled. The hypervisor is asked for all its domains at once, so that a round
costs it one call however many watch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from qubesd.core.keeper import Keeper
from qubesd.errors import QubesError
from qubesd.events import Keys, Read, WireEvent
from qubesd.model.properties import read
from qubesd.virt.hypervisor import Figures

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QubeStatistics(WireEvent):
    """One qube in one round. Memory is in KiB, ``cpu_time`` in milliseconds since the start, ``cpu_usage`` in
    percent of its processors since the round before, 0 where there was none."""

    kind = "vm-stats"

    subject: str
    memory: int
    cpu_time: int
    cpu_usage: int
    vcpus: int

    def keys(self) -> Keys:
        """All of the memory is usable, and what the guest has in use is not known, where no guest tells."""
        memory = str(self.memory)
        return (
            ("memory_kb", memory),
            ("memory_assigned_total", memory),
            ("memory_assigned_usable", memory),
            ("memory_with_swap_used", memory),
            ("cpu_time", str(self.cpu_time)),
            ("cpu_usage", str(self.cpu_usage)),
            ("online_vcpus", str(self.vcpus)),
        )

    def reads(self) -> tuple[Read, ...]:
        return (Read("admin.vm.Stats", "", self.subject),)


class Statistics:
    """The rounds of one keeper; each is published as one ``QubeStatistics`` for each running qube."""

    def __init__(self, keeper: Keeper) -> None:
        self.last: tuple[QubeStatistics, ...] = ()
        """The latest round, for who begins to watch between two; empty while nobody watches."""
        self._keeper = keeper
        self._watchers = 0
        self._rounds: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Have rounds until ``unwatch`` is called as often as this; the first is at once where there were
        none."""
        self._watchers += 1
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.get_running_loop().create_task(self._sample())

    def unwatch(self) -> None:
        self._watchers -= 1
        if not self._watchers and self._rounds is not None:
            self._rounds.cancel()
            self._rounds = None
            self.last = ()

    async def close(self) -> None:
        """No more rounds, whoever still watches."""
        rounds, self._rounds = self._rounds, None
        if rounds is not None:
            rounds.cancel()
            await asyncio.gather(rounds, return_exceptions=True)

    async def _sample(self) -> None:
        before: Mapping[str, Figures] = {}
        at = time.monotonic()
        answers = True
        while True:
            try:
                now = await self._keeper.hypervisor.all_figures()
            except QubesError as error:
                if answers:
                    _log.warning("no statistics for now: %s", error)
                now, answers = {}, False
            else:
                answers = True
            since, at = at, time.monotonic()
            self.last = tuple(self._told(before, now, at - since))
            for event in self.last:
                self._keeper.bus.publish(event)
            before = now
            await asyncio.sleep(_interval(self._keeper))

    def _told(
        self, before: Mapping[str, Figures], now: Mapping[str, Figures], seconds: float
    ) -> list[QubeStatistics]:
        told = []
        for uuid, figures in now.items():
            name = self._keeper.system.by_uuid.get(uuid)
            if name is not None:
                told.append(
                    QubeStatistics(
                        name,
                        figures.memory,
                        figures.cpu_time // 1_000_000,
                        usage(before.get(uuid), figures, seconds),
                        figures.vcpus,
                    )
                )
        return sorted(told, key=lambda one: one.subject)


def usage(before: Figures | None, now: Figures, seconds: float) -> int:
    """Percent of all its processors together; 0 for the first time and after a new start."""
    if before is None or now.vcpus == 0 or seconds <= 0 or now.cpu_time < before.cpu_time:
        return 0
    return round((now.cpu_time - before.cpu_time) / (seconds * 1e9) / now.vcpus * 100)


def _interval(keeper: Keeper) -> float:
    """Seconds to the next round; at least a tenth, whatever is set."""
    value = read(keeper, None, "stats_interval").value
    return max(float(value), 0.1) if isinstance(value, int) else 3.0
