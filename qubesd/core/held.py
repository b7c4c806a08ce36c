"""Which devices a qube has, and how that is known of one that ran before this daemon.

A disk and a PCI device are in the description of the domain. USB devices and the microphone are led in by the
guests, and no trace of that is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from qubesd.core import assignments
from qubesd.core.keeper import Keeper
from qubesd.model.devices import MANUAL, UNKNOWN_INTERFACE, Device, Wanted
from qubesd.model.state import DOM0, Assignment, Qube
from qubesd.model.volumes import targets
from qubesd.virt.hypervisor import Disk

Exposed = Callable[[Qube, str], Awaitable[list[Device]]]

_DEV = "/dev/"
_UNKNOWN = f"0000:0000::{UNKNOWN_INTERFACE}"
"""The identity of a device of which nothing but the port is known (``spec/devices.md`` 1)."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device that a qube has now, as an assignment; ``disk`` for a block device."""

    device: Device
    assignment: Assignment
    disk: Disk | None = None


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
    return Device("block", backend, disk.path.removeprefix(_DEV).replace("/", "_"), _UNKNOWN)


def _wish(qube: Qube, device: Device) -> Assignment:
    """The assignment of exactly this device, else that it was attached by hand."""
    wanted = Wanted(device.backend, device.port, device.identity)
    by_hand = Assignment(device.devclass, device.backend, device.port, device.identity, MANUAL)
    return assignments.find(qube, device.devclass, wanted) or by_hand
