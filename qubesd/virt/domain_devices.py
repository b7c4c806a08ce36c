"""What a running domain has plugged in, read from libvirt's description of it."""

from __future__ import annotations

from lxml import etree

from qubesd.virt.hypervisor import Disk, Plugged


def plugged(document: str) -> Plugged:
    """The disks and the host's PCI devices; what is described in another way than ours is left out."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    devices = etree.fromstring(document.encode(), parser).find("devices")
    if devices is None:
        return Plugged()
    disks = (_disk(element) for element in devices.iterfind("disk"))
    addresses = (_address(element) for element in devices.iterfind("hostdev[@type='pci']/source/address"))
    return Plugged(
        tuple(disk for disk in disks if disk is not None),
        tuple(address for address in addresses if address is not None),
    )


def _disk(element: etree._Element) -> Disk | None:
    source, target = element.find("source"), element.find("target")
    path = None if source is None else source.get("dev") or source.get("file")
    name = None if target is None else target.get("dev")
    if path is None or name is None:
        return None
    backend = element.find("backenddomain")
    return Disk(
        str(path),
        str(name),
        rw=element.find("readonly") is None,
        backend=None if backend is None else str(backend.get("name")),
        cdrom=element.get("device") == "cdrom",
    )


def _address(element: etree._Element) -> str | None:
    """``SSSS:BB:DD.F``."""
    try:
        segment, bus, slot, function = (
            int(str(element.get(name)), 16) for name in ("domain", "bus", "slot", "function")
        )
    except ValueError:
        return None
    return f"{segment:04x}:{bus:02x}:{slot:02x}.{function:x}"
