"""The firewalls of the qubes: kept in files of their own, changed as a whole, told of by an event.

A rule that expires is left out from then on; at that moment whoever carries the rules out is told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from pathlib import Path

from qubesd.core import folders
from qubesd.core.keeper import Keeper
from qubesd.core.lives import Lives
from qubesd.core.storage import Storage
from qubesd.errors import NoSuchQube, NotSupported, QubesError
from qubesd.events import FirewallChanged
from qubesd.model.firewall import ACCEPT_ALL, Rule
from qubesd.model.state import Klass, Qube
from qubesd.store.firewall import dump, load

_log = logging.getLogger(__name__)

_LONGEST = 24 * 3600.0
"""Seconds that a timer runs at most; the clock may be set meanwhile."""


class Firewalls:
    """The rules of one keeper's qubes."""

    def __init__(self, keeper: Keeper, storage: Storage, lives: Lives) -> None:
        self._keeper = keeper
        self._storage = storage
        self._lives = lives
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Learn which rules expire."""
        for name in await self._storage.work(self._with_rules):
            try:
                await self.rules(self._keeper.system.qubes[name])
            except QubesError as error:
                _log.error("%s", error)

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def rules(self, qube: Qube) -> tuple[Rule, ...]:
        """The rules in force, in order.

        Raises:
            NotSupported: a RemoteVM has none.
            QubeError, StoreError: they cannot be read.
        """
        _check_has_one(qube)
        rules = await self._storage.work(self._read, qube)
        self._wait_for_expiry(qube, rules)
        return rules

    async def set(self, qube: Qube, rules: Iterable[Rule]) -> None:
        """Have these rules instead; those that have expired already are left out."""
        _check_has_one(qube)
        async with self._lives.holding(qube):
            kept = _in_force(rules)
            await self._storage.work(self._write, qube, kept)
        self._wait_for_expiry(qube, kept)
        self._keeper.bus.publish(FirewallChanged(qube.name))

    def reload(self, qube: Qube) -> None:
        """Have the rules carried out anew."""
        _check_has_one(qube)
        self._keeper.bus.publish(FirewallChanged(qube.name))

    async def copied(self, source: Qube) -> bytes | None:
        """What a disposable has of its template's firewall, as the content of its own file."""
        return await self._storage.work(folders.read, self._place(source))

    def _place(self, qube: Qube) -> Path:
        return folders.place(self._keeper.config, qube, folders.FIREWALL)

    def _with_rules(self) -> list[str]:
        qubes = self._keeper.system.qubes.values()
        return [qube.name for qube in qubes if qube.klass is not Klass.REMOTE and self._place(qube).exists()]

    def _read(self, qube: Qube) -> tuple[Rule, ...]:
        place = self._place(qube)
        content = folders.read(place)
        return ACCEPT_ALL if content is None else _in_force(load(content, str(place)))

    def _write(self, qube: Qube, rules: Iterable[Rule]) -> None:
        folders.write(self._place(qube), dump(rules))

    def _wait_for_expiry(self, qube: Qube, rules: Iterable[Rule]) -> None:
        known = self._timers.pop(qube.uuid, None)
        if known is not None:
            known.cancel()
        ends = [rule.expire for rule in rules if rule.expire is not None]
        if ends:
            delay = min(max(0.0, min(ends) - time.time()) + 0.01, _LONGEST)
            loop = asyncio.get_running_loop()
            self._timers[qube.uuid] = loop.call_later(delay, self._begin_expiry, qube)

    def _begin_expiry(self, qube: Qube) -> None:
        task = asyncio.get_running_loop().create_task(self._expire(qube))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _expire(self, qube: Qube) -> None:
        """Leave out what has expired, and wait for what expires next."""
        try:
            qube = self._keeper.current(qube)
            rules = await self._storage.work(self._all, qube)
            kept = _in_force(rules)
            if len(kept) < len(rules):
                await self.set(qube, kept)
            else:
                self._wait_for_expiry(qube, kept)
        except NoSuchQube:
            self._timers.pop(qube.uuid, None)
        except QubesError as error:
            _log.error("firewall of qube %r: expired rules stay in its file: %s", qube.name, error)
            self._keeper.bus.publish(FirewallChanged(qube.name))

    def _all(self, qube: Qube) -> list[Rule]:
        """The rules in the file, those that have expired among them."""
        place = self._place(qube)
        content = folders.read(place)
        return [] if content is None else load(content, str(place))


def _in_force(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    now = time.time()
    return tuple(rule for rule in rules if rule.expire is None or rule.expire > now)


def _check_has_one(qube: Qube) -> None:
    if qube.klass is Klass.REMOTE:
        raise NotSupported(f"qube {qube.name!r} is on another host, which has its firewall")
