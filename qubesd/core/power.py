"""The power verbs, as the API has them (``spec/admin-calls.md`` 2.5)."""

from __future__ import annotations

import asyncio
from contextvars import copy_context

from qubesd.core.databases import Databases
from qubesd.core.devices import Devices
from qubesd.core.domain import number
from qubesd.core.downstream import Downstream
from qubesd.core.firewall import Firewalls
from qubesd.core.guests import Guests
from qubesd.core.keeper import Keeper
from qubesd.core.lives import ELSEWHERE, Lives
from qubesd.core.power_events import (
    DomainPrePaused,
    DomainPreShutdown,
    DomainPreUnpaused,
    DomainShutdownFailed,
)
from qubesd.core.run import Run
from qubesd.core.start import Starter
from qubesd.core.storage import Storage
from qubesd.errors import (
    NotSupported,
    QubeError,
    QubeInUse,
    QubeNotHalted,
    QubeNotPaused,
    QubeNotRunning,
    QubeNotStarted,
    QubesError,
    ShutdownTimeout,
)
from qubesd.model.properties import read
from qubesd.model.state import DOM0_UUID, Klass, Qube
from qubesd.virt.hypervisor import DomainState, Figures


class Power:
    """The verbs on one keeper's qubes. What a verb began is finished, also when its caller has gone."""

    def __init__(self, keeper: Keeper, storage: Storage, databases: Databases) -> None:
        self._keeper = keeper
        self.guests = Guests(keeper)
        self.lives = Lives(keeper, storage)
        self.devices = Devices(keeper, storage, self.lives)
        self.firewalls = Firewalls(keeper, storage, self.lives)
        self.downstream = Downstream(keeper, databases, self.firewalls)
        self._starter = Starter(keeper, self.lives, storage, self.devices, databases, self.downstream)

    async def open(self) -> None:
        """Connect to the hypervisor and learn which qubes run; ``HypervisorLost`` where it is not there."""
        await self.lives.open()

    async def close(self) -> None:
        """Let what is under way end, for a bounded time, and disconnect. Qubes go on running."""
        await self.lives.close()

    async def start(self, qube: Qube) -> None:
        """Start the qube, its netvm before it; nothing where it is not halted.

        Raises:
            QubeNotHalted: dom0 or a RemoteVM.
            QubesError: the reason that ``domain-start-failed`` gives as well.
        """
        if qube.klass in ELSEWHERE:
            raise QubeNotHalted(f"{qube.name!r} is always running")
        await self.lives.finish(self._starter.start(qube))

    async def shutdown(self, qube: Qube, *, force: bool = False, wait: bool = False) -> None:
        """Ask the qube to shut down.

        Args:
            force: also where others use it, and where it cannot react (then it is killed).
            wait: return when the stop has been dealt with, not when the request was delivered.

        Raises:
            QubeNotStarted: it is halted.
            QubeNotRunning: it is paused or the like, and ``force`` is not given.
            QubeInUse: a running qube has it as netvm or audiovm.
            QubeError: a running qube has it as guivm.
            ShutdownTimeout: ``wait``, and it was not halted after its ``shutdown_timeout``.
        """
        run = self._local(qube)
        await self.lives.finish(self._shut_down(qube, force))
        if wait:
            limit = number(self._keeper, qube, "shutdown_timeout")
            try:
                async with asyncio.timeout(limit):
                    await run.halted.wait()
            except TimeoutError:
                error = ShutdownTimeout(f"qube {qube.name!r} did not shut down within {limit} seconds")
                self._keeper.bus.publish(DomainShutdownFailed(qube.name, str(error)))
                raise error from None

    async def kill(self, qube: Qube) -> None:
        """Take the qube down at once, also in the middle of its start; returns when that was dealt with.

        Raises:
            QubeNotStarted: it is halted.
        """
        run = self._local(qube)
        if run.domain.state is DomainState.OFF:
            raise QubeNotStarted(f"qube {qube.name!r} is not running")
        await self.lives.finish(self._kill(run))

    async def pause(self, qube: Qube) -> None:
        """Stop the qube's processors; nothing where they stand still already.

        Raises:
            QubeNotRunning: it does not run.
        """
        self._local(qube)
        await self.lives.finish(self._pause(qube))

    async def unpause(self, qube: Qube) -> None:
        """Let the processors go on.

        Raises:
            QubeNotPaused: they were not stopped.
        """
        self._local(qube)
        await self.lives.finish(self._unpause(qube))

    async def suspend(self, qube: Qube) -> None:
        """Put the guest to sleep; pause the qube where the hypervisor cannot do that.

        Raises:
            QubeNotRunning: it does not run.
        """
        self._local(qube)
        await self.lives.finish(self._suspend(qube))

    async def resume(self, qube: Qube) -> None:
        """Wake the guest up, or unpause the qube where it is paused.

        Raises:
            QubeNotPaused: it is neither.
        """
        self._local(qube)
        await self.lives.finish(self._resume(qube))

    async def figures(self, qube: Qube) -> Figures:
        """What the qube uses now; all zero where it does not run on this host."""
        if qube.klass is Klass.ADMIN:
            return await self._keeper.hypervisor.figures(DOM0_UUID)
        if qube.klass is Klass.REMOTE or self.lives.run(qube).domain.state is DomainState.OFF:
            return Figures()
        return await self._keeper.hypervisor.figures(qube.uuid)

    def _local(self, qube: Qube) -> Run:
        """The run of a qube whose power is ours to switch."""
        if qube.klass in ELSEWHERE:
            raise QubeError(f"the power of {qube.name!r} cannot be switched from here")
        return self.lives.run(qube)

    async def _shut_down(self, qube: Qube, force: bool) -> None:
        async with self.lives.holding(qube) as run:
            if run.domain.state is DomainState.OFF:
                raise QubeNotStarted(f"qube {qube.name!r} is not running")
            try:
                self._keeper.bus.publish(DomainPreShutdown(run.name, force))
                if not force:
                    self._check_unused(run.name)
                run.asked = copy_context()
                if run.domain.state in (DomainState.RUNNING, DomainState.STOPPING):
                    await self._ask_to_stop(run)
                elif force:
                    await self.lives.take_down(run)
                else:
                    raise QubeNotRunning(f"qube {run.name!r} is not running and cannot react; use force")
            except QubesError as error:
                self._keeper.bus.publish(DomainShutdownFailed(run.name, str(error)))
                raise
            await self.lives.settle(run)

    async def _ask_to_stop(self, run: Run) -> None:
        """Where the domain is gone as soon as it was asked, the news of that are waited for."""
        with run.expecting(DomainState.OFF) as gone:
            if await self._keeper.hypervisor.shutdown(run.uuid) is DomainState.OFF:
                await self.lives.hear(run, DomainState.OFF, gone)

    def _check_unused(self, name: str) -> None:
        """Who uses it is not told: the caller may not be one who may know of that qube."""
        for user in self.lives.active():
            if user.name == name:
                continue
            for role in ("netvm", "audiovm"):
                if read(self._keeper, user, role).value == name:
                    raise QubeInUse(f"a running qube has {name!r} as its {role}; stop it first or use force")
            if read(self._keeper, user, "guivm").value == name:
                raise QubeError(f"a running qube has {name!r} as its guivm; stop it first or use force")

    async def _kill(self, run: Run) -> None:
        run.asked = copy_context()
        await self.lives.take_down(run)
        async with run.lock:
            await self.lives.settle(run)

    async def _pause(self, qube: Qube) -> None:
        async with self.lives.holding(qube) as run:
            await self._stand_still(run)

    async def _stand_still(self, run: Run) -> None:
        if run.domain.state is DomainState.PAUSED:
            return
        if run.domain.state not in (DomainState.RUNNING, DomainState.STOPPING):
            raise QubeNotRunning(f"qube {run.name!r} is not running")
        self._keeper.bus.publish(DomainPrePaused(run.name))
        await self.lives.bring(run, DomainState.PAUSED, self._keeper.hypervisor.pause(run.uuid))

    async def _unpause(self, qube: Qube) -> None:
        async with self.lives.holding(qube) as run:
            if run.domain.state is not DomainState.PAUSED:
                raise QubeNotPaused(f"qube {run.name!r} is not paused")
            await self._go_on(run)

    async def _go_on(self, run: Run) -> None:
        self._keeper.bus.publish(DomainPreUnpaused(run.name))
        await self.lives.bring(run, DomainState.RUNNING, self._keeper.hypervisor.unpause(run.uuid))

    async def _suspend(self, qube: Qube) -> None:
        async with self.lives.holding(qube) as run:
            if run.domain.state is DomainState.SUSPENDED:
                return
            if run.domain.state is DomainState.RUNNING:
                await self.guests.tell((qube,), "qubes.SuspendPre")
                try:
                    suspended = self._keeper.hypervisor.suspend(run.uuid)
                    await self.lives.bring(run, DomainState.SUSPENDED, suspended)
                    return
                except NotSupported:
                    pass  # stock pauses then (spec/domains.md 6.4)
            await self._stand_still(run)

    async def _resume(self, qube: Qube) -> None:
        async with self.lives.holding(qube) as run:
            if run.domain.state is DomainState.SUSPENDED:
                await self.lives.bring(run, DomainState.RUNNING, self._keeper.hypervisor.wake(run.uuid))
                await self.guests.tell((qube,), "qubes.SuspendPost")
            elif run.domain.state is DomainState.PAUSED:
                await self._go_on(run)
            else:
                raise QubeNotPaused(f"qube {run.name!r} is neither suspended nor paused")
