"""Which devices a qube has, and how that is known of one that ran before this daemon.

A disk and a PCI device are in the description of the domain. USB devices and the microphone are led in by the
guests, and no trace of that is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from qubesd.core import assignments
from qubesd.core.keeper import Keeper
from qubesd.errors import DeviceAlreadyAttached
from qubesd.model.devices import MANUAL, UNKNOWN_INTERFACE, Device, Wanted
from qubesd.model.state import DOM0, Assignment, Qube
from qubesd.model.volumes import targets
from qubesd.virt.hypervisor import Disk

Exposed = Callable[[Qube, str], Awaitable[list[Device]]]

_DEV = "/dev/"
UNKNOWN = f"0000:0000::{UNKNOWN_INTERFACE}"
"""The identity of a device of which nothing but the port is known (``spec/devices.md`` 1)."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device that a qube has now, as an assignment; ``disk`` for a block device."""

    device: Device
    assignment: Assignment
    disk: Disk | None = None


@dataclass(slots=True, eq=False)
class Holding:
    """That the qube ``holder`` has a device, or (not ``there`` yet) is about to get it.

    ``run`` is the number of the domain that exposed it then; what that domain exposed ends with it.
    """

    holder: str
    attachment: Attachment
    run: int
    there: bool = False

    @property
    def device(self) -> Device:
        return self.attachment.device


class Held:
    """All holdings. A device has one holder, from the moment on that it is promised to one."""

    def __init__(self) -> None:
        self._of: dict[str, list[Holding]] = {}
        self._from: dict[str, list[Holding]] = {}

    def of(self, name: str) -> list[Holding]:
        """What the qube has, in the order in which it came."""
        return [one for one in self._of.get(name, ()) if one.there]

    def out_of(self, backend: str) -> list[Holding]:
        """What others have of this qube's, or are about to get."""
        return list(self._from.get(backend, ()))

    def holder(self, device: Device) -> str | None:
        """The qube that has the device."""
        return next((one.holder for one in self._on(device) if one.there), None)

    def refuse_taken(self, device: Device, name: str) -> None:
        """Raises ``DeviceAlreadyAttached`` where the qube of this name or another has or gets it."""
        for other in self._on(device):
            where = "this qube" if other.there and other.holder == name else "a qube"
            raise DeviceAlreadyAttached(f"{where} has device {device.backend}:{device.port}; detach it first")

    def put(self, holding: Holding) -> None:
        self._of.setdefault(holding.holder, []).append(holding)
        self._from.setdefault(holding.device.backend, []).append(holding)

    def drop(self, holding: Holding) -> None:
        """Forget it; nothing where it was forgotten already."""
        holding.there = False
        for sides, name in ((self._of, holding.holder), (self._from, holding.device.backend)):
            left = [one for one in sides.pop(name, ()) if one is not holding]
            if left:
                sides[name] = left

    def _on(self, device: Device) -> Iterator[Holding]:
        for one in self._from.get(device.backend, ()):
            if (one.device.devclass, one.device.port) == (device.devclass, device.port):
                yield one


async def attachments(keeper: Keeper, exposed: Exposed, qube: Qube) -> list[Attachment]:
    """The devices that the domain of a running qube has besides the qube's own volumes.

    A disk that its backend does not announce any more is among them, for the qube still has it.

    Raises:
        QubesError: the hypervisor does not say.
    """
    plugged = await keeper.hypervisor.plugged(qube.uuid)
    own = targets(list(qube.volumes))
    found = []
    for disk in plugged.disks:
        if disk.target not in own and disk.path.startswith(_DEV):
            device = await _block(keeper, exposed, disk)
            found.append(Attachment(device, _wish(qube, device), disk))
    if plugged.pci:
        addresses = set(plugged.pci)
        for device in await exposed(keeper.system.qubes[DOM0], "pci"):
            if device.data["sbdf"] in addresses:
                found.append(Attachment(device, _wish(qube, device)))
    return found


async def _block(keeper: Keeper, exposed: Exposed, disk: Disk) -> Device:
    backend = disk.backend or DOM0
    known = keeper.system.qubes.get(backend)
    for device in () if known is None else await exposed(known, "block"):
        if device.data["device_node"] == disk.path:
            return device
    return Device("block", backend, disk.path.removeprefix(_DEV).replace("/", "_"), UNKNOWN)


def _wish(qube: Qube, device: Device) -> Assignment:
    """The assignment of exactly this device, else that it was attached by hand."""
    wanted = Wanted(device.backend, device.port, device.identity)
    by_hand = Assignment(device.devclass, device.backend, device.port, device.identity, MANUAL)
    return assignments.find(qube, device.devclass, wanted) or by_hand
