"""The lives of the qubes: what runs, the news of it, and what a stop brings with it.

A qube's state is what the hypervisor last told of its domain; nothing is polled. Whoever wants a change asks
the hypervisor and waits for its news, and events are published when the news comes, so that a change from
outside tells the same story as a call. Each qube has one lock, held by a start, the handling of a stop, a
removal and the pause family; only a kill does not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any, TypeVar

from qubesd.core import uplinks
from qubesd.core.keeper import Keeper
from qubesd.core.marks import Marks
from qubesd.core.power_events import (
    DomainAppeared,
    DomainPaused,
    DomainResumed,
    DomainShutdown,
    DomainStopped,
    DomainUnpaused,
)
from qubesd.core.removal import remove
from qubesd.core.run import OFF, Run
from qubesd.core.storage import Storage
from qubesd.errors import NoSuchQube, QubeError, QubesError
from qubesd.events import PropertyReset, SystemRestored
from qubesd.model.properties import read
from qubesd.model.state import Klass, Qube
from qubesd.model.view import Running
from qubesd.virt.hypervisor import Domain, DomainChange, DomainState

T = TypeVar("T")
_log = logging.getLogger(__name__)

_NEWS = 30.0
"""Seconds that a hypervisor has to tell of what it has just done."""
_CLOSING = 10.0
"""Seconds that what is under way has to end when the daemon stops."""

ELSEWHERE = frozenset((Klass.ADMIN, Klass.REMOTE))
"""The classes whose domains, if any, are not ours to start or stop."""

_BY_RUN = ("xid", "stubdom_xid", "start_time")
"""The properties that are other ones in each run."""

_CHANGES = {
    (DomainState.RUNNING, DomainState.PAUSED): DomainPaused,
    (DomainState.PAUSED, DomainState.RUNNING): DomainUnpaused,
    (DomainState.SUSPENDED, DomainState.RUNNING): DomainResumed,
}


class Lives:
    """The runs of one keeper's qubes."""

    def __init__(self, keeper: Keeper, storage: Storage) -> None:
        self._keeper = keeper
        self._storage = storage
        self._marks = Marks(keeper.config.run_dir / "qubes/running")
        self._runs: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._heard: set[str] | None = None
        self._first = False

    async def open(self) -> None:
        """Connect to the hypervisor and learn which qubes run; domains that are no qubes are left alone.

        A qube that an earlier daemon knew to run and that has stopped since is dealt with now.

        Raises:
            HypervisorLost: the hypervisor cannot be reached.
        """
        self._first = self._marks.is_first()
        left = self._marks.load()
        self._keeper.bus.subscribe(SystemRestored, lambda _: self._drop_strays())
        await self._keeper.hypervisor.open(self._news, lambda: self.behind(self._catch_up()))
        await self._catch_up()
        for uuid in left:
            name = self._keeper.system.by_uuid.get(uuid)
            if name is None:
                self._marks.drop(uuid)
            elif self.run(self._keeper.system.qubes[name]).domain.state is DomainState.OFF:
                self.run(self._keeper.system.qubes[name]).announce()
                self._turn(uuid, OFF)

    async def close(self) -> None:
        """Let what is under way end, for a bounded time, and disconnect. Qubes go on running."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSING)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keeper.hypervisor.close()

    def run(self, qube: Qube) -> Run:
        """What is known of this qube's life; of a qube that is gone nothing is kept."""
        run = self._runs.get(qube.uuid)
        if run is None:
            run = Run(qube.uuid, qube.name)
            if qube.uuid in self._keeper.system.by_uuid:
                self._runs[qube.uuid] = run
        return run

    def active(self) -> Iterator[Qube]:
        """The qubes of this host whose state is anything but halted, dom0 not among them."""
        for run in self._runs.values():
            if run.shown().state != "Halted" and run.name in self._keeper.system.qubes:
                yield self._keeper.system.qubes[run.name]

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of the work, which goes on to its end also if its caller is cancelled."""
        return await asyncio.shield(self._begin(work))

    @asynccontextmanager
    async def holding(self, qube: Qube) -> AsyncIterator[Run]:
        """Hold the lock of the qube's life; nothing of an earlier run is left to do then.

        Raises:
            NoSuchQube: the qube was removed meanwhile.
        """
        run = self.run(qube)
        async with run.lock:
            await self.settle(run)
            if self._keeper.system.by_uuid.get(run.uuid) != run.name:
                raise NoSuchQube(f"qube {run.name!r} is gone")
            yield run

    async def bring(self, run: Run, state: DomainState, act: Awaitable[T]) -> T:
        """Have the hypervisor do something, and return its answer once it told that this is now the state.

        Raises:
            QubeError: it told nothing of the kind; and what the act raises.
        """
        with run.expecting(state) as told:
            answer = await act
            await self.hear(run, state, told)
            return answer

    async def hear(self, run: Run, state: DomainState, told: asyncio.Future[None]) -> None:
        """Wait for news that must come, for a bounded time.

        Raises:
            QubeError: they did not come.
        """
        done, _ = await asyncio.wait((told,), timeout=_NEWS)
        if not done:
            raise QubeError(
                f"qube {run.name!r}: the hypervisor did not tell within {_NEWS:.0f} seconds "
                f"that the domain is {state.value}"
            )

    async def take_down(self, run: Run) -> None:
        """Destroy the domain, if there is one."""
        destroyed = self._keeper.hypervisor.destroy(run.uuid)
        known = run.domain.state is not DomainState.OFF
        await (self.bring(run, DomainState.OFF, destroyed) if known else destroyed)

    async def settle(self, run: Run) -> None:
        """Deal with a stop that was not dealt with yet; the caller holds the lock.

        Each stop comes by here once, so it gives exactly one pair of events. A disposable with
        ``auto_cleanup`` is removed.
        """
        if not run.stop_pending:
            return
        run.stop_pending, run.asked = False, None
        try:
            self._keeper.bus.publish(DomainStopped(run.name))
            self._show(run)
            self.tell_new_run(run.name)
            await uplinks.cut(self._keeper, run.name, list(self.active()))
            if run.name in self._keeper.system.qubes:
                await self._storage.stop(self._keeper.system.qubes[run.name])
            self._keeper.bus.publish(DomainShutdown(run.name))
            if run.announced:  # it was started again from outside
                self._keeper.bus.publish(DomainAppeared(run.name))
            await self.clean_up(run.name)
        finally:
            if not run.announced:
                self._marks.drop(run.uuid)
                run.halted.set()

    def tell_new_run(self, name: str) -> None:
        """Publish that the properties that go with a run have changed."""
        for prop in _BY_RUN:
            self._keeper.bus.publish(PropertyReset(name, prop))

    async def clean_up(self, name: str) -> None:
        """Remove the qube if it is a disposable that goes with its run; the caller holds the lock."""
        qube = self._keeper.system.qubes.get(name)
        if qube is None or qube.klass is not Klass.DISPOSABLE:
            return
        if not read(self._keeper, qube, "auto_cleanup").value:
            return
        try:
            await remove(self._keeper, self._storage, qube)
        except QubesError as error:
            _log.error("disposable %r was to be removed after its run and stays: %s", name, error)
        else:
            await self.forget(qube)

    async def clean_up_left_overs(self) -> None:
        """Once the host has booted, remove the unnamed disposables that go with their run and have none
        (``spec/domains.md`` 6.5). A daemon that starts again leaves them to whoever made them."""
        for qube in list(self._keeper.system.qubes.values()) if self._first else ():
            if qube.klass is Klass.DISPOSABLE and qube.name == f"disp{qube.dispid}":
                async with self.run(qube).lock:
                    if self._keeper.running(qube.name).state == "Halted":
                        await self.clean_up(qube.name)

    async def forget(self, qube: Qube) -> None:
        """Drop what is known of a qube that was removed, in the hypervisor as well."""
        self._runs.pop(qube.uuid, None)
        try:
            await self._keeper.hypervisor.forget(qube.uuid)
        except QubesError as error:
            _log.warning("qube %r was removed, its domain's definition was not: %s", qube.name, error)

    def start_announces(self, run: Run, domain: Domain) -> None:
        """The start made this domain and is about to tell of it; from now on its end is an event."""
        run.domain = domain
        self._announce(run)
        self._show(run)

    def start_ends(self, run: Run) -> None:
        run.starting = False
        self._show(run)

    def _announce(self, run: Run) -> None:
        self._marks.put(run.uuid)
        run.announce()

    def _show(self, run: Run) -> None:
        if self._runs.get(run.uuid) is run:
            self._keeper.set_running(run.name, run.shown())

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """A refusal is its caller's, and where the caller has gone, events told of it; a mistake is ours."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, QubesError):
            _log.error("power: internal error", exc_info=error)

    def behind(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for; a failure goes to the log."""

        async def logged() -> None:
            try:
                await work
            except QubesError as error:
                _log.error("%s", error)

        self._begin(logged())

    def _news(self, change: DomainChange) -> None:
        if self._heard is not None:
            self._heard.add(change.uuid)
        self._turn(change.uuid, change.domain)

    def _turn(self, uuid: str, domain: Domain) -> None:
        """The domain is now this: keep it, show it, tell of it."""
        name = self._keeper.system.by_uuid.get(uuid)
        if name is None or self._keeper.system.qubes[name].klass in ELSEWHERE:
            return
        run = self.run(self._keeper.system.qubes[name])
        before = run.domain.state
        run.turn(domain)
        from_outside = not run.starting and before is DomainState.OFF is not domain.state
        if from_outside:
            self._announce(run)
        self._show(run)
        if run.stop_pending:
            (run.asked or copy_context()).run(self.behind, self._settle_later(run))
        elif from_outside:
            self.tell_new_run(name)
            self._keeper.bus.publish(DomainAppeared(name))
        elif run.announced and (before, domain.state) in _CHANGES:
            self._keeper.bus.publish(_CHANGES[before, domain.state](name))

    async def _settle_later(self, run: Run) -> None:
        async with run.lock:
            await self.settle(run)

    async def _catch_up(self) -> None:
        """Compare what is known with what there is: at the start, and after a lost connection."""
        self._heard = set()
        try:
            found = await self._keeper.hypervisor.domains()
            # What was told while the list was asked for is newer than the list.
            unheard = (found.keys() | self._runs.keys()) - self._heard
        finally:
            self._heard = None
        for uuid in unheard:
            run = self._runs.get(uuid)
            known, now = OFF if run is None else run.domain, found.get(uuid, OFF)
            if OFF.xid != known.xid != now.xid:
                self._turn(uuid, OFF)  # what was known is gone; what there is now is another domain
            if known.state is not now.state or known.xid != now.xid:
                self._turn(uuid, now)

    def _drop_strays(self) -> None:
        """The system went back to one without some qubes; take down what runs of those."""
        for run in list(self._runs.values()):
            if self._keeper.system.by_uuid.get(run.uuid) != run.name:
                del self._runs[run.uuid]
                self._keeper.set_running(run.name, Running())
                self._marks.drop(run.uuid)
                self.behind(self._drop(run.uuid))

    async def _drop(self, uuid: str) -> None:
        await self._keeper.hypervisor.destroy(uuid)
        await self._keeper.hypervisor.forget(uuid)
