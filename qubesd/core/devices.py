"""Devices that qubes expose, and which qube has which of them now (``spec/devices.md`` 5 to 8).

An attachment belongs to a run: it ends with the run of either side. A device is looked for, judged, plugged
in and unplugged under the lock of the life of the qube that has it or gets it, and never under that of its
backend, so no two lives wait for each other. It is promised meanwhile, so that no two qubes get it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager

from qubesd.core import assignments, exposure, held, plugging
from qubesd.core.device_events import DeviceAttach, DeviceDetach, DevicePreAttach, DevicePreDetach
from qubesd.core.held import Attachment, Held, Holding
from qubesd.core.keeper import Keeper
from qubesd.core.lives import Lives
from qubesd.core.power_events import DomainStopped
from qubesd.core.storage import Storage
from qubesd.errors import (
    DeviceNotAssigned,
    NoSuchQube,
    NotSupported,
    ProtocolError,
    QubeNotHalted,
    QubeNotRunning,
    QubesError,
)
from qubesd.model.devices import MANUAL, Device, Wanted, fits
from qubesd.model.state import Assignment, Klass, Qube

_log = logging.getLogger(__name__)

_BEFORE_BOOT = ("block", "pci")
"""The classes whose devices a domain can begin with."""


class Devices:
    """What one keeper's qubes have and expose; ``held`` is who has what."""

    def __init__(self, keeper: Keeper, storage: Storage, lives: Lives) -> None:
        self._keeper = keeper
        self._storage = storage
        self._lives = lives
        self.held = Held()
        keeper.bus.subscribe(DomainStopped, lambda event: self._stopped(event.subject))

    async def open(self) -> None:
        """Learn what the running qubes have: an earlier daemon, or the start that it did, may have plugged it
        in."""
        for qube in list(self._lives.active()):
            try:
                found = await held.attachments(self._keeper, self.exposed, qube)
            except QubesError as error:
                _log.error("qube %r: what it has plugged in is not known: %s", qube.name, error)
                continue
            for attachment in found:
                run = self._keeper.running(attachment.device.backend).xid
                self.held.put(Holding(qube.name, attachment, run, there=True))

    async def exposed(self, qube: Qube, devclass: str) -> list[Device]:
        """The devices of this class that the qube exposes now, by port."""
        if qube.klass is Klass.ADMIN and devclass == "pci":
            return exposure.of_host(await self._keeper.hypervisor.pci_devices())
        if devclass not in exposure.ANNOUNCED:
            return [exposure.MICROPHONE] if qube.klass is Klass.ADMIN and devclass == "mic" else []
        if self._keeper.running(qube.name).state == "Halted" or qube.klass is Klass.REMOTE:
            return []
        databases = self._keeper.config.run_dir / exposure.DATABASES
        return await self._storage.work(exposure.announced, databases, qube, devclass)

    def attached(self, qube: Qube, devclass: str) -> list[Attachment]:
        """What the qube has of this class now."""
        found = self.held.of(qube.name)
        return [one.attachment for one in found if one.device.devclass == devclass]

    def holder(self, device: Device) -> str | None:
        """The qube that has the device now."""
        return self.held.holder(device)

    async def attach(
        self, qube: Qube, devclass: str, wanted: Wanted, mode: str, options: Mapping[str, str]
    ) -> None:
        """Plug a device into a running qube, for this run.

        Raises:
            QubeNotRunning: the qube, or the one that exposes the device, is halted.
            ProtocolError: there is no such device, or more than one.
            DeviceAlreadyAttached: a qube has it.
            PermissionDenied: it is to be attached by hand and the qube denies such devices.
            BadValue: the options are none for it.
        """
        assignments.refuse_remote(qube)
        await self._lives.finish(self._attach(qube, devclass, wanted, mode, options))

    async def give(self, qube: Qube, device: Device, wish: Assignment) -> None:
        """Plug in exactly this device, as it is assigned; raises as ``attach``."""
        wanted = Wanted(device.backend, device.port, device.identity)
        await self._attach(qube, device.devclass, wanted, wish.mode, wish.options)

    async def detach(self, qube: Qube, devclass: str, wanted: Wanted) -> None:
        """Unplug a device.

        Raises:
            DeviceNotAssigned: the qube does not have it.
            QubeNotHalted: the qube is to have it whenever it runs.
        """
        assignments.refuse_remote(qube)
        await self._lives.finish(self._detach(qube, devclass, wanted))

    async def lose(self, holding: Holding) -> None:
        """Take a device that seems to be gone from the qube that has it or was just getting it; nothing where
        the domain that exposed it still does."""
        holder = self._keeper.system.qubes.get(holding.holder)
        if holder is None:
            self.held.drop(holding)
            return
        try:
            async with self._lives.holding(holder):
                if holding.there and not await self._is_exposed(holding):
                    await self._take(holder, holding)
        except NoSuchQube:
            self.held.drop(holding)

    async def check_required(self, qube: Qube) -> None:
        """Raises as ``required``."""
        async with self.required(qube):
            return

    @asynccontextmanager
    async def required(self, qube: Qube) -> AsyncIterator[list[Holding]]:
        """The devices that the qube must have when it starts, promised to it until the end of the block.

        Raises:
            QubesError: one is not there, or another qube has it.
        """
        with ExitStack() as promised:
            found: list[Holding] = []
            for wish in qube.assignments:
                if wish.mode != "required":
                    continue
                device, run = await self._present(qube, wish)
                # Two wishes may mean the same device.
                if all(one.device != device for one in found):
                    self.held.refuse_taken(device, qube.name)
                    attachment = plugging.planned(self._keeper, qube, device, wish, _disks(found))
                    found.append(promised.enter_context(self._promised(Holding(qube.name, attachment, run))))
            yield found

    def started_with(self, found: list[Holding]) -> None:
        """A domain was made with these."""
        for holding in found:
            self._arrived(holding)

    async def _attach(
        self, qube: Qube, devclass: str, wanted: Wanted, mode: str, options: Mapping[str, str]
    ) -> None:
        async with self._lives.holding(qube):
            if self._keeper.running(qube.name).state == "Halted":
                raise QubeNotRunning(f"qube {qube.name!r} is not running; start it first")
            device, run = await self._only(devclass, wanted)
            wish = Assignment(devclass, device.backend, device.port, device.identity, mode, dict(options))
            self.held.refuse_taken(device, qube.name)
            if mode == MANUAL:
                plugging.refuse_denied(self._keeper, qube, device)
            taken = _disks(self.held.of(qube.name))
            attachment = plugging.planned(self._keeper, qube, device, wish, taken)
            with self._promised(Holding(qube.name, attachment, run)) as holding:
                self._keeper.bus.publish(DevicePreAttach(*_words(holding)))
                await plugging.plug(self._keeper, qube, attachment)
                self._arrived(holding)

    async def _detach(self, qube: Qube, devclass: str, wanted: Wanted) -> None:
        async with self._lives.holding(qube):
            found = [
                one
                for one in self.held.of(qube.name)
                if (one.device.devclass, one.device.backend, one.device.port)
                == (devclass, wanted.backend, wanted.port)
                and wanted.identity in ("*", one.device.identity)
            ]
            if not found:
                raise DeviceNotAssigned(f"qube {qube.name!r} does not have this device")
            (holding,) = found
            if _is_required(self._keeper.current(qube), holding.device):
                raise QubeNotHalted(f"qube {qube.name!r} is to have this device whenever it runs")
            await self._unplug(qube, holding)

    async def _take(self, qube: Qube, holding: Holding) -> None:
        device = holding.device
        if _is_required(self._keeper.current(qube), device):
            _log.warning("qube %r: device %s:%s is required and gone", qube.name, device.backend, device.port)
        try:
            await self._unplug(qube, holding)
        except QubesError as error:
            _log.error("qube %r: a device that is gone was not unplugged: %s", qube.name, error)
            self._left(holding)

    async def _unplug(self, qube: Qube, holding: Holding) -> None:
        device = holding.device
        self._keeper.bus.publish(DevicePreDetach(qube.name, device.devclass, device.backend, device.port))
        await plugging.unplug(self._keeper, qube, holding.attachment)
        self._left(holding)

    def _stopped(self, name: str) -> None:
        """What the qube had is free, and who had something of it loses that."""
        for holding in self.held.of(name):
            self._left(holding)
        for holding in self.held.out_of(name):
            self._lives.behind(self.lose(holding))

    async def _exposed_by(self, name: str, devclass: str) -> tuple[list[Device], int]:
        """What one run of that qube exposes, and its domain's number; nothing where it ends meanwhile."""
        backend = self._keeper.system.qubes.get(name)
        run = self._keeper.running(name).xid
        exposed = [] if backend is None else await self.exposed(backend, devclass)
        return exposed if self._keeper.running(name).xid == run else [], run

    async def _is_exposed(self, holding: Holding) -> bool:
        device = holding.device
        exposed, run = await self._exposed_by(device.backend, device.devclass)
        return run == holding.run and any(fits(device.port, device.identity, one) for one in exposed)

    async def _only(self, devclass: str, wanted: Wanted) -> tuple[Device, int]:
        """The one device that is meant; ``ProtocolError`` where there is none, or more than one."""
        exposed, run = await self._exposed_by(wanted.backend, devclass)
        found = [device for device in exposed if fits(wanted.port, wanted.identity, device)]
        if len(found) != 1:
            why = "there is no such device" if not found else "more than one device is meant"
            raise ProtocolError(f"{why}; list them with admin.vm.device.{devclass}.Available")
        return found[0], run

    async def _present(self, qube: Qube, wish: Assignment) -> tuple[Device, int]:
        if wish.devclass not in _BEFORE_BOOT:
            raise NotSupported(
                f"qube {qube.name!r}: a {wish.devclass} device cannot be there before the start; "
                "assign it as auto-attach"
            )
        exposed, run = await self._exposed_by(wish.backend, wish.devclass)
        device = next((device for device in exposed if assignments.means(wish, device)), None)
        if device is None:
            raise QubesError(
                f"qube {qube.name!r} needs {wish.devclass} device {wish.backend}:{wish.port}, "
                "which is not present"
            )
        return device, run

    @contextmanager
    def _promised(self, holding: Holding) -> Iterator[Holding]:
        """Keep the device for its new holder until it has it, or the block ends without that."""
        self.held.put(holding)
        try:
            yield holding
        finally:
            if not holding.there:
                self.held.drop(holding)

    def _arrived(self, holding: Holding) -> None:
        holding.there = True
        self._keeper.bus.publish(DeviceAttach(*_words(holding)))

    def _left(self, holding: Holding) -> None:
        device = holding.device
        self.held.drop(holding)
        self._keeper.bus.publish(DeviceDetach(holding.holder, device.devclass, device.backend, device.port))


def _words(holding: Holding) -> Iterator[str]:
    device = holding.device
    yield from (holding.holder, device.devclass, device.backend, device.port, device.identity)
    yield repr(dict(holding.attachment.assignment.options))


def _is_required(qube: Qube, device: Device) -> bool:
    wishes = assignments.of_class(qube, device.devclass)
    return any(wish.mode == "required" and assignments.means(wish, device) for wish in wishes)


def _disks(holdings: list[Holding]) -> list[str]:
    """The names that these have as disks."""
    disks = [one.attachment.disk for one in holdings]
    return [disk.target for disk in disks if disk is not None]
