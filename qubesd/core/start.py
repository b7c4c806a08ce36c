"""Starting a qube, step by step (``spec/domains.md`` 6.2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace

from qubesd.core import uplinks
from qubesd.core.databases import Databases
from qubesd.core.devices import Devices
from qubesd.core.domain import describe, needed_memory, number
from qubesd.core.downstream import Downstream
from qubesd.core.held import Attachment
from qubesd.core.keeper import Keeper
from qubesd.core.lives import ELSEWHERE, Lives
from qubesd.core.power_events import (
    DomainPreSpawn,
    DomainPreStart,
    DomainPreUnpaused,
    DomainQdbCreate,
    DomainSpawn,
    DomainStart,
    DomainStartFailed,
    DomainVerifyFiles,
)
from qubesd.core.run import Run
from qubesd.core.storage import Storage
from qubesd.core.usage import Spawned, Started
from qubesd.errors import OverLimit, QubeError, QubesError
from qubesd.model import features
from qubesd.model.lineage import netvm_of, netvms, template_of
from qubesd.model.memory import most
from qubesd.model.properties import read
from qubesd.model.state import Klass, Qube
from qubesd.virt.hypervisor import Domain, DomainSpec, DomainState

_log = logging.getLogger(__name__)

_RESTORING = "backup-restore-in-progress"


class Starter:
    """Starts qubes, each after its netvm."""

    def __init__(
        self,
        keeper: Keeper,
        lives: Lives,
        storage: Storage,
        devices: Devices,
        databases: Databases,
        downstream: Downstream,
    ) -> None:
        self._keeper = keeper
        self._lives = lives
        self._storage = storage
        self._devices = devices
        self._databases = databases
        self._downstream = downstream
        self._waits_for: dict[str, str] = {}
        """Which qube's start waits for which netvm's."""

    async def start(self, qube: Qube) -> None:
        """Start the qube unless it has a domain. A failure leaves it halted.

        Raises:
            OverLimit: an owner may not run it, or a netvm of it, too; nobody was told of anything.
            QubesError: why not; ``domain-start-failed`` told of it.
        """
        await self._start(qube, frozenset())

    async def _start(self, qube: Qube, promised: frozenset[str]) -> None:
        """The same for a qube that may be started for another, which holds promises for these uuids."""
        async with self._lives.holding(qube) as run:
            if run.domain.state is not DomainState.OFF:
                return
            wanted = [
                Started(each.uuid, most(self._keeper, each)) for each in self._to_promise(run.name, promised)
            ]
            promised = promised.union(one.uuid for one in wanted) if wanted else promised
            with self._keeper.budgets.holding(*wanted):
                try:
                    await self._prepare(self._keeper.system.qubes[run.name], promised)
                    await self._spawn(run, self._keeper.system.qubes[run.name])
                except BaseException as error:
                    await self._give_up(run, error)
                    raise
                finally:
                    self._lives.start_ends(run)
            self._keeper.bus.publish(DomainStart(run.name))
            await uplinks.join(self._keeper, run.name, list(self._lives.active()))

    def _to_promise(self, name: str, promised: frozenset[str]) -> Iterator[Qube]:
        """The qube, and the netvms that its start would start as well, unless they are promised: with each so
        are those behind it. Where that has changed, the start of the netvm itself finds it."""
        for qube in netvms(self._keeper.system, self._keeper.system.qubes[name]):
            if qube.klass in ELSEWHERE or self._keeper.running(qube.name).state != "Halted":
                return
            if qube.uuid not in promised:
                yield qube
            elif qube.name != name:
                return

    async def _prepare(self, qube: Qube, promised: frozenset[str]) -> None:
        """Everything that has to be so before there is a domain."""
        why_not = qube.features.get("prohibit-start")
        if why_not:
            raise QubesError(f"qube {qube.name!r} may not start: {why_not}")
        self._keeper.bus.publish(DomainPreStart(qube.name, needed_memory(self._keeper, qube)))
        self._check_may_start(qube)
        await self._devices.check_required(qube)
        await self._storage.verify(qube)
        self._keeper.bus.publish(DomainVerifyFiles(qube.name))
        await self._start_netvm(qube, promised)

    def _check_may_start(self, qube: Qube) -> None:
        if _RESTORING in qube.tags:
            raise QubeError(f"qube {qube.name!r} is being restored from a backup; start it when that is done")
        template = template_of(self._keeper.system, qube)
        if (
            qube.klass is Klass.DISPOSABLE
            and template is not None
            and not read(self._keeper, template, "template_for_dispvms").value
        ):
            raise QubesError(f"{template.name!r} is no template for disposables any more")

    async def _start_netvm(self, qube: Qube, promised: frozenset[str]) -> None:
        netvm = netvm_of(self._keeper.system, qube)
        if netvm is None or netvm.klass in ELSEWHERE:
            return
        # A start that waits for itself would wait for ever, and two that wait for each other too.
        step: str | None = netvm.name
        while step is not None:
            if step == qube.name:
                raise QubeError(f"netvm loop: {qube.name!r} is behind itself")
            step = self._waits_for.get(step)
        self._waits_for[qube.name] = netvm.name
        try:
            await self._lives.finish(self._start(netvm, promised))
        except OverLimit:
            raise  # it says nothing, and knows who may be told
        except QubesError as error:
            # What is wrong there may be for others to know: its own failure event tells them.
            _log.error("qube %r: its netvm %r did not start: %s", qube.name, netvm.name, error)
            raise type(error)(f"the netvm of {qube.name!r} did not start") from error
        finally:
            del self._waits_for[qube.name]

    async def _spawn(self, run: Run, qube: Qube) -> None:
        """From properties to a domain that can be used."""
        keeper, lives = self._keeper, self._lives
        keeper.bus.publish(DomainPreSpawn(qube.name))
        spec = describe(keeper, qube, keeper.config.kernels_dir)
        async with self._devices.required(qube) as devices:
            domain = await self._make(run, qube, spec, [one.attachment for one in devices])
            lives.start_announces(run, domain)
            lives.tell_new_run(qube.name)
            self._devices.started_with(devices)
        keeper.bus.publish(DomainSpawn(qube.name))
        qube = keeper.current(qube)
        self._databases.begin(qube)
        await self._downstream.begin(qube)
        keeper.bus.publish(DomainQdbCreate(qube.name))
        keeper.bus.publish(DomainPreUnpaused(qube.name))
        await lives.bring(run, DomainState.RUNNING, keeper.hypervisor.unpause(qube.uuid))
        _check_is_there(run)
        if features.with_template(keeper, qube, "qrexec"):
            await self._wait_for_agent(run, number(keeper, qube, "qrexec_timeout"))

    async def _make(self, run: Run, qube: Qube, spec: DomainSpec, devices: list[Attachment]) -> Domain:
        """A domain that is paused, with the qube's volumes and these devices."""
        # It may ask for more memory than when its start began.
        with self._keeper.budgets.holding(Spawned(qube.uuid, most(self._keeper, qube))):
            run.starting = True
            disks = [*await self._storage.start(qube), *(one.disk for one in devices if one.disk is not None)]
            pci = tuple(one.device.data["sbdf"] for one in devices if one.disk is None)
            created = self._keeper.hypervisor.create(replace(spec, disks=tuple(disks), pci=pci))
            domain = await self._lives.bring(run, DomainState.PAUSED, created)
        _check_is_there(run)
        return domain

    async def _wait_for_agent(self, run: Run, limit: int) -> None:
        """``limit`` is in seconds."""
        answer = asyncio.ensure_future(self._keeper.hypervisor.answers(run.uuid))
        with run.expecting(DomainState.OFF) as gone:
            try:
                await asyncio.wait((answer, gone), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                _check_is_there(run)
                if not answer.done():
                    raise QubeError(f"qube {run.name!r} did not answer within {limit} seconds of its start")
                answer.result()
            finally:
                answer.cancel()

    async def _give_up(self, run: Run, error: BaseException) -> None:
        """Tell of the failure and leave the qube halted, or gone where it goes with its run."""
        reason = str(error) if isinstance(error, QubesError) else "internal error, see the log"
        self._keeper.bus.publish(DomainStartFailed(run.name, reason))
        if run.starting:
            try:
                await self._lives.take_down(run)
            except QubesError as second:
                _log.error("qube %r failed to start and was not taken down: %s", run.name, second)
            await self._lives.settle(run)
            if run.domain.state is DomainState.OFF and run.name in self._keeper.system.qubes:
                await self._storage.stop(self._keeper.system.qubes[run.name])
        if run.domain.state is DomainState.OFF:
            await self._lives.clean_up(run.name)


def _check_is_there(run: Run) -> None:
    if run.domain.state is DomainState.OFF:
        raise QubeError(f"qube {run.name!r} stopped while it was starting")
