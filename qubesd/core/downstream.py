"""What a running netvm finds of the running qubes behind it: their addresses and their rules
(``spec/domains.md`` 6.6), kept in step with both.

An address belongs to who came first with it: no qube's rules are replaced by those of another that takes its
address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from qubesd.core import network_entries
from qubesd.core.databases import Databases
from qubesd.core.firewall import Firewalls
from qubesd.core.keeper import Keeper
from qubesd.core.power_events import DomainAppeared, DomainStopped
from qubesd.errors import QubeError, QubesError
from qubesd.events import FirewallChanged
from qubesd.model.firewall import Rule
from qubesd.model.lineage import netvm_of
from qubesd.model.network import provides_network
from qubesd.model.state import Qube

_log = logging.getLogger(__name__)

_Place = tuple[str, str]
"""A netvm and an address behind it."""


class Downstream:
    """The qubes behind one keeper's netvms."""

    def __init__(self, keeper: Keeper, databases: Databases, firewalls: Firewalls) -> None:
        self._keeper = keeper
        self._databases = databases
        self._firewalls = firewalls
        self._places: dict[str, frozenset[_Place]] = {}
        """What each running qube holds or would hold."""
        self._holders: dict[_Place, list[str]] = {}
        """Who would hold a place, in the order in which they came; the first one does."""
        self._rules: dict[str, tuple[Rule, ...]] = {}
        """Those that were in force when they were last told to be others, by running qube."""
        self._stale: dict[str, bool] = {}
        """The qubes to be looked at again, and whether their netvm is to be told in any case."""
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def open(self, running: Iterable[Qube]) -> None:
        """Write of the qubes that run, take away what an earlier daemon wrote of others, and follow."""
        bus = self._keeper.bus
        self._databases.refreshed = self._spoil
        bus.subscribe(FirewallChanged, lambda event: self._spoil(event.subject, True))
        bus.subscribe(DomainStopped, lambda event: self._stopped(event.subject))
        bus.subscribe(DomainAppeared, lambda event: self._appeared(event.subject))
        for qube in running:
            self._claim(qube.name)  # first all, for what nobody claims goes with the first look
            self._spoil(qube.name)
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Follow nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def begin(self, qube: Qube) -> None:
        """Before its guest does anything, have its netvm know the qube, and the qube those behind it.

        Raises:
            QubeError: a database cannot be written.
        """
        users = self._databases.building_on(qube.name) if provides_network(qube) else frozenset()
        try:
            for name in (qube.name, *sorted(users)):
                await self._look(name, True)
            self._settle(qube.name)
        except OSError as error:
            _log.error("the network of qube %r cannot be told to its netvm: %s", qube.name, error)
            raise QubeError(
                f"the network of qube {qube.name!r} cannot be set up; see the daemon's log"
            ) from error

    async def tell(self, qube: Qube) -> None:
        """Have the netvm know the qube's rules as they are now, so that nobody who asked for them is answered
        before. Where that fails the log says so."""
        self._stale.pop(qube.name, None)
        await self._try(qube.name, True)

    def _appeared(self, name: str) -> None:
        for each in (name, *self._databases.building_on(name)):
            self._spoil(each, True)

    def _stopped(self, name: str) -> None:
        self._rules.pop(name, None)
        places = self._places.pop(name, frozenset())
        try:
            self._release(name, places)
            for netvm, _ in places:
                self._settle(netvm)
        except OSError as error:
            _log.error("qube %r stopped, and its netvm was not told: %s", name, error)

    def _spoil(self, name: str, tell: bool = False) -> None:
        """Look at the qube again soon."""
        if self._databases.page(name) is None and name not in self._places:
            return
        self._stale[name] = self._stale.get(name, False) or tell
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._stale:
                name = next(iter(self._stale))
                await self._try(name, self._stale.pop(name))
        finally:
            self._task = None

    async def _try(self, name: str, tell: bool) -> None:
        try:
            await self._look(name, tell)
            self._settle(name)
        except OSError as error:
            _log.error("the network of qube %r was not told to its netvm: %s", name, error)

    async def _look(self, name: str, tell: bool) -> None:
        """Have the qube stand in its netvm's database as it is now; ``tell``: with its rules read anew, and
        the netvm told of them. Raises ``OSError``."""
        async with self._lock:
            if tell or name not in self._rules:
                self._rules.pop(name, None)
                if self._netvm(name) is not None:
                    await self._read(self._keeper.system.qubes[name])
            # The netvm may be another one by now; the rules are not, or this is done once more.
            self._write(name, tell)

    def _netvm(self, name: str) -> str | None:
        """The netvm that is to know the running qube; ``None`` where none is, or it does not run."""
        qube = self._keeper.system.qubes.get(name)
        if qube is None or self._databases.page(name) is None:
            return None
        netvm = netvm_of(self._keeper.system, qube)
        return None if netvm is None or self._databases.page(netvm.name) is None else netvm.name

    async def _read(self, qube: Qube) -> None:
        try:
            self._rules[qube.name] = await self._firewalls.rules(qube)
        except QubesError as error:
            _log.error("qube %r gets nothing through its firewall: %s", qube.name, error)

    def _write(self, name: str, tell: bool) -> None:
        """Raises ``OSError``."""
        left = self._claim(name)
        wanted = self._places.get(name, frozenset())
        if not wanted:
            self._rules.pop(name, None)
        changed = [place for place in sorted(wanted) if self._fill(name, place) or tell]
        for netvm in {netvm for netvm, _ in left | wanted}:
            self._settle(netvm)
        # Last: with this the guest reads all that is below.
        for netvm, address in changed:
            page = self._databases.page(netvm)
            if page is not None and self._holders[netvm, address][0] == name:
                page.database.touch(f"{network_entries.FIREWALL}/{address}")

    def _claim(self, name: str) -> frozenset[_Place]:
        """Have the qube hold, or wait for, the places that it is to have now; those that it left."""
        netvm = self._netvm(name)
        wanted = frozenset[_Place]()
        if netvm is not None:
            qube = self._keeper.system.qubes[name]
            wanted = frozenset((netvm, each) for each in network_entries.addresses(self._keeper, qube))
        left = self._places.pop(name, frozenset()) - wanted
        self._release(name, left)
        if wanted:
            self._places[name] = wanted
        for place in sorted(wanted):
            holders = self._holders.setdefault(place, [])
            if name not in holders:
                holders.append(name)
                if holders[0] != name:
                    _log.warning(
                        "qube %r has no rules of its own: another one has its address %s", name, place[1]
                    )
        return left

    def _fill(self, name: str, place: _Place) -> bool:
        """Write of the qube in this place if it holds it; whether there was anything to write. Raises
        ``OSError``."""
        netvm, address = place
        page = self._databases.page(netvm)
        if self._holders[place][0] != name or page is None:
            return False
        qube, rules = self._keeper.system.qubes[name], self._rules.get(name, ())
        return page.put(address, network_entries.behind(self._keeper, qube, address, rules))

    def _release(self, name: str, places: Iterable[_Place]) -> None:
        """The qube has gone from there; who waits for the place gets it."""
        for place in places:
            holders = self._holders[place]
            holders.remove(name)
            if holders:
                self._spoil(holders[0])
            else:
                del self._holders[place]

    def _settle(self, netvm: str) -> None:
        """Take away what nobody holds any more, and list the rest. Raises ``OSError``."""
        page = self._databases.page(netvm)
        qube = self._keeper.system.qubes.get(netvm)
        if page is None or qube is None:
            return
        known = [part for part in page.parts() if part not in (network_entries.OWN, network_entries.LISTS)]
        held = [address for address in known if (netvm, address) in self._holders]
        for address in set(known).difference(held):
            page.put(address, {})
        lists = network_entries.connected(held) if provides_network(qube) else {}
        listed = sum(len(addresses.split()) for addresses in lists.values())
        if page.put(network_entries.LISTS, lists) and lists and listed < len(held):
            _log.error(
                "netvm %r is told of %d addresses behind it, not of %d more",
                netvm,
                listed,
                len(held) - listed,
            )
