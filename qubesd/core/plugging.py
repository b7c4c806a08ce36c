"""How a device gets into a qube and out of it again, by its class (``spec/devices.md`` 6 and 7)."""

from __future__ import annotations

from collections.abc import Collection

from qubesd.core import block
from qubesd.core.held import Attachment
from qubesd.core.keeper import Keeper
from qubesd.errors import BadValue, PermissionDenied, QubesError
from qubesd.model.devices import Device, has_denied
from qubesd.model.properties import read
from qubesd.model.state import DOM0, Assignment, Qube
from qubesd.model.volumes import targets


def planned(
    keeper: Keeper, qube: Qube, device: Device, wish: Assignment, taken: Collection[str]
) -> Attachment:
    """The device as the qube would have it.

    Args:
        taken: the names that disks of other qubes have in this one.

    Raises:
        BadValue: the options are none for it.
        QubesError: the qube cannot have such a device.
    """
    if device.devclass == "block":
        options = block.checked_options(wish.options)
        return Attachment(
            device, wish, block.disk_of(device, options, [*targets(list(qube.volumes)), *taken])
        )
    if qube.name == DOM0:
        raise QubesError("dom0 gets no devices this way")
    if device.devclass != "pci":
        if wish.options:
            raise BadValue(f"{device.devclass} devices have no options")
    elif read(keeper, qube, "virt_mode").value == "pvh":
        raise QubesError(f"qube {qube.name!r} has virt_mode 'pvh', in which there are no PCI devices")
    return Attachment(device, wish)


def refuse_denied(keeper: Keeper, qube: Qube, device: Device) -> None:
    """Raises ``PermissionDenied`` where the qube takes no such devices by hand."""
    denied = str(read(keeper, qube, "devices_denied").value)
    if has_denied(denied, device.interfaces):
        raise PermissionDenied(f"qube {qube.name!r} takes no such devices by hand (devices_denied)")


async def plug(keeper: Keeper, qube: Qube, attachment: Attachment) -> None:
    device = attachment.device
    if attachment.disk is not None:
        await keeper.hypervisor.attach_disk(qube.uuid, attachment.disk)
    elif device.devclass == "pci":
        await keeper.hypervisor.attach_pci(qube.uuid, device.data["sbdf"])
    else:
        await keeper.hypervisor.lead_in(qube.uuid, *_led(keeper, device))


async def unplug(keeper: Keeper, qube: Qube, attachment: Attachment) -> None:
    device = attachment.device
    if attachment.disk is not None:
        await keeper.hypervisor.detach_disk(qube.uuid, attachment.disk.target)
    elif device.devclass == "pci":
        await keeper.hypervisor.detach_pci(qube.uuid, device.data["sbdf"])
    else:
        await keeper.hypervisor.lead_out(qube.uuid, *_led(keeper, device))


def _led(keeper: Keeper, device: Device) -> tuple[str, str]:
    """A USB device or the microphone as the hypervisor names it; of a qube that is gone, by no uuid."""
    backend = keeper.system.qubes.get(device.backend)
    return "" if backend is None else backend.uuid, f"{device.devclass}:{device.port}"
