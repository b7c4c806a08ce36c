"""A domain's description for libvirt, built element by element from typed values.

No text is ever joined into markup (QSB-066): a name or a kernel option that looks like XML stays text, and
what no XML document can hold is refused.
"""

from __future__ import annotations

from lxml import etree

from qubesd.errors import QubesError
from qubesd.virt.hypervisor import Disk, DomainSpec, Interface


def domain_xml(spec: DomainSpec, domain_type: str) -> str:
    """The document that defines the domain; ``domain_type`` is libvirt's word for it, such as ``test``.

    Raises:
        QubesError: a value holds a character that XML has no place for.
    """
    try:
        return etree.tostring(_domain(spec, domain_type), encoding="unicode")
    except ValueError as error:
        raise QubesError(f"domain {spec.name!r} cannot be described to the hypervisor: {error}") from error


def _domain(spec: DomainSpec, domain_type: str) -> etree._Element:
    domain = etree.Element("domain", type=domain_type)
    _text(domain, "name", spec.name)
    _text(domain, "uuid", spec.uuid)
    _text(domain, "memory", str(max(spec.memory, spec.maxmem)), unit="MiB")
    _text(domain, "currentMemory", str(spec.memory), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus), placement="static")
    domain.append(_boot(spec))
    etree.SubElement(domain, "clock", offset="utc")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _text(domain, event, "destroy")
    devices = etree.SubElement(domain, "devices")
    devices.extend(_disk(disk) for disk in spec.disks)
    devices.extend(interface_element(interface) for interface in spec.interfaces)
    devices.extend(_host_device(address) for address in spec.pci)
    etree.SubElement(devices, "console", type="pty")
    return domain


def _boot(spec: DomainSpec) -> etree._Element:
    os = etree.Element("os")
    _text(os, "type", "hvm")
    if spec.kernel is not None:
        _text(os, "kernel", f"{spec.kernel}/vmlinuz")
        _text(os, "initrd", f"{spec.kernel}/initramfs")
        _text(os, "cmdline", spec.kernelopts)
    return os


def _disk(disk: Disk) -> etree._Element:
    element = etree.Element("disk", type="block", device="cdrom" if disk.cdrom else "disk")
    etree.SubElement(element, "driver", name="phy")
    etree.SubElement(element, "source", dev=disk.path)
    etree.SubElement(element, "target", dev=disk.target, bus="xen")
    if not disk.rw:
        etree.SubElement(element, "readonly")
    if disk.backend is not None:
        etree.SubElement(element, "backenddomain", name=disk.backend)
    if disk.script is not None:
        etree.SubElement(element, "script", path=disk.script)
    return element


def console_path(document: str) -> str | None:
    """The terminal that libvirt gave the console of a running domain; ``None`` where it gave none."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    console = etree.fromstring(document.encode(), parser).find("devices/console")
    source = None if console is None else console.find("source")
    path = None if source is None else source.get("path")
    return None if path is None or not str(path).startswith("/dev/") else str(path)


def _host_device(address: str) -> etree._Element:
    segment, bus, rest = address.split(":")
    slot, _, function = rest.partition(".")
    element = etree.Element("hostdev", type="pci", managed="yes")
    source = etree.SubElement(element, "source")
    place = {"domain": segment, "bus": bus, "slot": slot, "function": function}
    etree.SubElement(source, "address", {name: f"0x{value}" for name, value in place.items()})
    return element


def interface_element(interface: Interface) -> etree._Element:
    """The ``interface`` element, as it stands in a domain or is plugged into one that runs."""
    element = etree.Element("interface", type="ethernet")
    etree.SubElement(element, "mac", address=interface.mac)
    etree.SubElement(element, "ip", address=interface.ip)
    etree.SubElement(element, "backenddomain", name=interface.backend)
    return element


def _text(parent: etree._Element, tag: str, text: str, **attributes: str) -> None:
    etree.SubElement(parent, tag, attributes).text = text
