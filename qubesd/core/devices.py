"""Devices that qubes expose, and which qube has which of them now (``spec/devices.md`` 5 to 8).

An attachment belongs to a run: it ends with the run of either side. A device is looked for, judged and
plugged in under the lock of its new qube's life, and claimed meanwhile, so that no two qubes get it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from qubesd.core import assignments, block, device_questions, exposure, held
from qubesd.core.device_events import (
    DeviceAdded,
    DeviceAttach,
    DeviceDetach,
    DeviceListChange,
    DevicePreAttach,
    DevicePreDetach,
    DeviceRemoved,
)
from qubesd.core.held import Attachment
from qubesd.core.keeper import Keeper
from qubesd.core.lives import Lives
from qubesd.core.power_events import DomainStart, DomainStopped
from qubesd.core.storage import Storage
from qubesd.errors import (
    BadValue,
    DeviceAlreadyAttached,
    DeviceNotAssigned,
    NotSupported,
    PermissionDenied,
    ProtocolError,
    QubeNotHalted,
    QubeNotRunning,
    QubesError,
)
from qubesd.model.devices import CLASSES, MANUAL, Device, Wanted, by_precedence, fits, has_denied
from qubesd.model.properties import read
from qubesd.model.state import DOM0, Assignment, Klass, Qube
from qubesd.model.volumes import targets

_log = logging.getLogger(__name__)

_ANNOUNCED = ("block", "usb")
"""The classes whose devices come and go while their qube runs."""

_BEFORE_BOOT = ("block", "pci")
"""The classes whose devices a domain can begin with."""
_BY_THEMSELVES = ("auto-attach", "ask-to-attach")
"""The modes in which a device comes without a call."""

_Slot = tuple[str, str, str]
"""Class, backend and port."""


class Devices:
    """What one keeper's qubes have and expose."""

    def __init__(self, keeper: Keeper, storage: Storage, lives: Lives) -> None:
        self._keeper = keeper
        self._storage = storage
        self._lives = lives
        self._attached: dict[str, list[Attachment]] = {}
        self._claimed: set[_Slot] = set()
        self._known: dict[tuple[str, str], dict[str, Device]] = {}
        self._asked_about: set[_Slot] = set()
        self.ask: device_questions.Ask = device_questions.nobody
        """How the user is asked where a device may go; whoever can reach an agent sets it."""
        keeper.bus.subscribe(DomainStart, lambda event: lives.behind(self._started(event.subject)))
        keeper.bus.subscribe(DomainStopped, lambda event: self._stopped(event.subject))

    async def open(self) -> None:
        """Learn what the running qubes have and expose: an earlier daemon, or the start that it did, may have
        plugged it in. It is no news, so nothing is told."""
        for qube in list(self._lives.active()):
            for devclass in _ANNOUNCED:
                exposed = await self.exposed(qube, devclass)
                self._known[qube.name, devclass] = {device.port: device for device in exposed}
            try:
                found = await held.attachments(self._keeper, self.exposed, qube)
            except QubesError as error:
                _log.error("qube %r: what it has plugged in is not known: %s", qube.name, error)
                continue
            if found:
                self._attached[qube.name] = found

    async def exposed(self, qube: Qube, devclass: str) -> list[Device]:
        """The devices of this class that the qube exposes now, by port."""
        if qube.klass is Klass.ADMIN and devclass == "pci":
            return exposure.of_host(await self._keeper.hypervisor.pci_devices())
        if devclass not in _ANNOUNCED:
            return [exposure.MICROPHONE] if qube.klass is Klass.ADMIN and devclass == "mic" else []
        if self._keeper.running(qube.name).state == "Halted" or qube.klass is Klass.REMOTE:
            return []
        databases = self._keeper.config.run_dir / "qubesdb"
        return await self._storage.work(exposure.announced, databases, qube, devclass)

    def attached(self, qube: Qube, devclass: str) -> list[Attachment]:
        """What the qube has of this class now."""
        found = self._attached.get(qube.name, ())
        return [one for one in found if one.device.devclass == devclass]

    def holder(self, device: Device) -> str | None:
        """The qube that has the device now."""
        slot = _slot(device)
        return next(
            (
                name
                for name, found in self._attached.items()
                if any(_slot(one.device) == slot for one in found)
            ),
            None,
        )

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

    async def detach(self, qube: Qube, devclass: str, wanted: Wanted) -> None:
        """Unplug a device.

        Raises:
            DeviceNotAssigned: the qube does not have it.
            QubeNotHalted: the qube is to have it whenever it runs.
        """
        assignments.refuse_remote(qube)
        await self._lives.finish(self._detach(qube, devclass, wanted))

    async def refresh(self, qube: Qube, devclass: str) -> None:
        """Look again at what the qube exposes; tell of what came and went, and carry out what was wished."""
        key = (qube.name, devclass)
        before = self._known.get(key, {})
        now = {device.port: device for device in await self.exposed(qube, devclass)}
        if now == before:
            return
        self._known[key] = now
        self._keeper.bus.publish(DeviceListChange(qube.name, devclass))
        gone = [device for port, device in before.items() if not _same(device, now.get(port))]
        for device in gone:
            await self._lose(device)
        for device in gone:
            self._keeper.bus.publish(DeviceRemoved(qube.name, devclass, qube.name, device.port))
        for port, device in now.items():
            if not _same(device, before.get(port)):
                self._keeper.bus.publish(DeviceAdded(qube.name, devclass, qube.name, port, device.identity))
                await self._hand_out(device)

    async def required(self, qube: Qube) -> list[Attachment]:
        """The devices that the qube must have when it starts.

        Raises:
            QubesError: one is not there, or another qube has it.
        """
        found: list[Attachment] = []
        for wish in qube.assignments:
            if wish.mode != "required":
                continue
            if wish.devclass not in _BEFORE_BOOT:
                raise NotSupported(
                    f"qube {qube.name!r}: a {wish.devclass} device cannot be there before the start; "
                    "assign it as auto-attach"
                )
            device = await self._present(qube, wish)
            taken = [one.disk.target for one in found if one.disk is not None]
            found.append(self._planned(qube, device, wish, taken))
        return found

    def started_with(self, qube: Qube, found: list[Attachment]) -> None:
        """The qube's domain was made with these."""
        for attachment in found:
            self._told(qube.name, attachment)

    async def _attach(
        self, qube: Qube, devclass: str, wanted: Wanted, mode: str, options: Mapping[str, str]
    ) -> None:
        async with self._lives.holding(qube):
            if self._keeper.running(qube.name).state == "Halted":
                raise QubeNotRunning(f"qube {qube.name!r} is not running; start it first")
            device = await self._only(devclass, wanted)
            wish = Assignment(devclass, device.backend, device.port, device.identity, mode, dict(options))
            slot = _slot(device)
            holder = self.holder(device)
            if holder is not None or slot in self._claimed:
                where = "this qube" if holder == qube.name else "a qube"
                raise DeviceAlreadyAttached(
                    f"{where} has device {device.backend}:{device.port}; detach it first"
                )
            if mode == MANUAL:
                self._refuse_denied(qube, device)
            self._claimed.add(slot)
            try:
                attachment = self._planned(qube, device, wish, [])
                self._keeper.bus.publish(DevicePreAttach(*_words(qube, attachment)))
                await self._plug(qube, attachment)
                self._told(qube.name, attachment)
            finally:
                self._claimed.discard(slot)

    async def _detach(self, qube: Qube, devclass: str, wanted: Wanted) -> None:
        async with self._lives.holding(qube):
            found = [
                one
                for one in self.attached(qube, devclass)
                if (one.device.backend, one.device.port) == (wanted.backend, wanted.port)
                and wanted.identity in ("*", one.device.identity)
            ]
            if not found:
                raise DeviceNotAssigned(f"qube {qube.name!r} does not have this device")
            (attachment,) = found
            for wish in assignments.of_class(self._keeper.current(qube), devclass):
                if wish.mode == "required" and _means(wish, attachment.device):
                    raise QubeNotHalted(f"qube {qube.name!r} is to have this device whenever it runs")
            await self._unplug(qube, attachment)

    async def _unplug(self, qube: Qube, attachment: Attachment) -> None:
        device = attachment.device
        self._keeper.bus.publish(DevicePreDetach(qube.name, device.devclass, device.backend, device.port))
        if attachment.disk is not None:
            await self._keeper.hypervisor.detach_disk(qube.uuid, attachment.disk.target)
        elif device.devclass == "pci":
            await self._keeper.hypervisor.detach_pci(qube.uuid, device.data["sbdf"])
        else:
            await self._keeper.hypervisor.lead_out(qube.uuid, *self._led(device))
        self._forget(qube.name, attachment)

    async def _plug(self, qube: Qube, attachment: Attachment) -> None:
        device = attachment.device
        if attachment.disk is not None:
            await self._keeper.hypervisor.attach_disk(qube.uuid, attachment.disk)
        elif device.devclass == "pci":
            await self._keeper.hypervisor.attach_pci(qube.uuid, device.data["sbdf"])
        else:
            await self._keeper.hypervisor.lead_in(qube.uuid, *self._led(device))

    def _led(self, device: Device) -> tuple[str, str]:
        """A USB device or the microphone as the hypervisor names it; of a qube that is gone, by no uuid."""
        backend = self._keeper.system.qubes.get(device.backend)
        return "" if backend is None else backend.uuid, f"{device.devclass}:{device.port}"

    async def _lose(self, device: Device) -> None:
        """The device is gone: take it from the qube that has it."""
        holder = self._keeper.system.qubes.get(self.holder(device) or "")
        for attachment in () if holder is None else self.attached(holder, device.devclass):
            if holder is not None and _slot(attachment.device) == _slot(device):
                try:
                    await self._unplug(holder, attachment)
                except QubesError as error:
                    _log.error("qube %r: a device that is gone was not unplugged: %s", holder.name, error)
                    self._forget(holder.name, attachment)

    async def _hand_out(self, device: Device) -> None:
        """Give a new device to the running qube that is to have it; the user says where there are several."""
        wishes: dict[str, Assignment] = {}
        for name in self._keeper.referrers.of(device.backend):
            if self._keeper.running(name).state == "Running":
                wish = _wish_for(self._keeper.system.qubes[name], device)
                if wish is not None:
                    wishes[name] = wish
        await self._give(device, wishes)

    async def _give(self, device: Device, wishes: Mapping[str, Assignment]) -> None:
        """Attach the device to the one qube that wishes for it by itself, else have the user asked."""
        if len(wishes) == 1:
            ((name, wish),) = wishes.items()
            if wish.mode == "auto-attach":
                await self._try(self._keeper.system.qubes[name], device, wish)
                return
        if wishes and _slot(device) not in self._asked_about:
            self._asked_about.add(_slot(device))
            self._lives.behind(self._ask_and_give(device, wishes))

    async def _ask_and_give(self, device: Device, wishes: Mapping[str, Assignment]) -> None:
        try:
            question = device_questions.question_of(self._keeper, device, tuple(sorted(wishes)))
            name = device_questions.chosen(question, await self.ask(question))
        finally:
            self._asked_about.discard(_slot(device))
        qube = None if name is None else self._keeper.system.qubes.get(name)
        if name is None or qube is None or _wish_for(qube, device) != wishes[name]:
            _log.info("device %s:%s is left alone", device.backend, device.port)
            return
        # The device that was asked about, or none: it is named by its identity too.
        await self._try(qube, device, wishes[name])

    async def _started(self, name: str) -> None:
        """A qube runs: see what it exposes, and attach what it is to have."""
        qube = self._keeper.system.qubes.get(name)
        if qube is None:
            return
        for devclass in _ANNOUNCED:
            await self.refresh(qube, devclass)
        for devclass in CLASSES:
            for wish in by_precedence(assignments.of_class(qube, devclass)):
                backend = self._keeper.system.qubes.get(wish.backend)
                if wish.mode in _BY_THEMSELVES and backend is not None:
                    for device in await self.exposed(backend, devclass):
                        if _wish_for(qube, device) == wish and self.holder(device) is None:
                            await self._give(device, {name: wish})

    async def _try(self, qube: Qube, device: Device, wish: Assignment) -> None:
        wanted = Wanted(device.backend, device.port, device.identity)
        try:
            await self._attach(qube, device.devclass, wanted, wish.mode, wish.options)
        except QubesError as error:
            _log.error("qube %r: device %s:%s was not attached: %s", qube.name, *_slot(device)[1:], error)

    def _stopped(self, name: str) -> None:
        """What the qube had is free, and what it exposed is gone."""
        for attachment in self._attached.pop(name, []):
            device = attachment.device
            self._keeper.bus.publish(DeviceDetach(name, device.devclass, device.backend, device.port))
        for devclass in _ANNOUNCED:
            for device in self._known.pop((name, devclass), {}).values():
                self._lives.behind(self._lose(device))
                self._keeper.bus.publish(DeviceRemoved(name, devclass, name, device.port))

    async def _only(self, devclass: str, wanted: Wanted) -> Device:
        """The one device that is meant; ``ProtocolError`` where there is none, or more than one."""
        backend = self._keeper.system.qubes.get(wanted.backend)
        exposed = [] if backend is None else await self.exposed(backend, devclass)
        found = [device for device in exposed if fits(wanted.port, wanted.identity, device)]
        if len(found) != 1:
            why = "there is no such device" if not found else "more than one device is meant"
            raise ProtocolError(f"{why}; list them with admin.vm.device.{devclass}.Available")
        return found[0]

    async def _present(self, qube: Qube, wish: Assignment) -> Device:
        backend = self._keeper.system.qubes.get(wish.backend)
        exposed = [] if backend is None else await self.exposed(backend, wish.devclass)
        device = next((device for device in exposed if _means(wish, device)), None)
        if device is None:
            raise QubesError(
                f"qube {qube.name!r} needs {wish.devclass} device {wish.backend}:{wish.port}, "
                "which is not present"
            )
        if self.holder(device) is not None:
            raise DeviceAlreadyAttached(f"another qube has device {wish.backend}:{wish.port}")
        return device

    def _planned(self, qube: Qube, device: Device, wish: Assignment, taken: list[str]) -> Attachment:
        """How the device is plugged in; raises as ``attach``."""
        if device.devclass == "block":
            own = targets(list(qube.volumes))
            have = [one.disk.target for one in self.attached(qube, "block") if one.disk is not None]
            options = block.checked_options(wish.options)
            return Attachment(device, wish, block.disk_of(device, options, [*own, *have, *taken]))
        if qube.name == DOM0:
            raise QubesError("dom0 gets no devices this way")
        if device.devclass != "pci":
            if wish.options:
                raise BadValue(f"{device.devclass} devices have no options")
            return Attachment(device, wish)
        if read(self._keeper, qube, "virt_mode").value == "pvh":
            raise QubesError(f"qube {qube.name!r} has virt_mode 'pvh', in which there are no PCI devices")
        return Attachment(device, wish)

    def _refuse_denied(self, qube: Qube, device: Device) -> None:
        denied = str(read(self._keeper, qube, "devices_denied").value)
        if has_denied(denied, device.interfaces):
            raise PermissionDenied(f"qube {qube.name!r} takes no such devices by hand (devices_denied)")

    def _told(self, name: str, attachment: Attachment) -> None:
        self._attached.setdefault(name, []).append(attachment)
        self._keeper.bus.publish(DeviceAttach(*_words(self._keeper.system.qubes[name], attachment)))

    def _forget(self, name: str, attachment: Attachment) -> None:
        device = attachment.device
        left = [one for one in self._attached.get(name, []) if one is not attachment]
        if left:
            self._attached[name] = left
        else:
            self._attached.pop(name, None)
        self._keeper.bus.publish(DeviceDetach(name, device.devclass, device.backend, device.port))


def _words(qube: Qube, attachment: Attachment) -> Iterator[str]:
    device = attachment.device
    yield from (qube.name, device.devclass, device.backend, device.port, device.identity)
    yield repr(dict(attachment.assignment.options))


def _slot(device: Device) -> _Slot:
    return device.devclass, device.backend, device.port


def _same(device: Device, other: Device | None) -> bool:
    return other is not None and device.identity == other.identity


def _wish_for(qube: Qube, device: Device) -> Assignment | None:
    """The most special assignment by which the qube is to have the device without a call."""
    wishes = by_precedence(assignments.of_class(qube, device.devclass))
    found = next((wish for wish in wishes if _means(wish, device)), None)
    return found if found is not None and found.mode in _BY_THEMSELVES else None


def _means(wish: Assignment, device: Device) -> bool:
    return wish.backend == device.backend and fits(wish.port, wish.identity, device)
