"""Devices of every class. The host has one PCI device, and the running qube ``caller`` announces disks
and USB devices."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.rows.row import Row

CLASSES = ("block", "mic", "pci", "usb")
_PRESENT = {
    "block": ("caller+sda", "caller+sdb"),
    "mic": ("dom0+mic", "dom0+mic"),
    "pci": ("dom0+00_1c.0-00_00.0", "dom0+00_1c.0-00_00.0"),
    "usb": ("caller+1-1", "caller+1-2"),
}
"""Two devices that can be attached, or one twice."""
ANNOUNCED = {"block": ("sda", "sdb"), "usb": ("1-1", "1-2")}
NODES = """\
<node><cpu><mhz>1</mhz><model>x</model><active>1</active><nodes>1</nodes><sockets>1</sockets><cores>1</cores>
<threads>1</threads></cpu><memory>33554432</memory>
<device><name>pci_0000_00_1c_0</name><capability type="pci"><class>0x060400</class>
<domain>0</domain><bus>0</bus><slot>28</slot><function>0</function><product id="0x1c10">bridge</product>
<vendor id="0x8086">chips</vendor></capability></device>
<device><name>pci_0000_02_00_0</name><parent>pci_0000_00_1c_0</parent><capability type="pci">
<class>0x020000</class><domain>0</domain><bus>2</bus><slot>0</slot><function>0</function>
<product id="0x0085">wifi</product><vendor id="0x8086">chips</vendor></capability></device>
</node>
"""
"""A host for libvirt's test driver; ``00_1c.0-00_00.0`` is the card behind the bridge."""


def furnish(root: Path) -> str:
    """Lay out the host; the lines of the configuration that make the daemon's host this one."""
    (root / "node.xml").write_text(NODES)
    return f'libvirt_uri = "test://{root}/node.xml"\n'


def announce(root: Path) -> None:
    """What the guest of ``caller`` announces, which runs."""
    for devclass, ports in ANNOUNCED.items():
        for port in ports:
            place = root / f"run/qubesdb/caller/qubes-{devclass}-devices" / port
            place.mkdir(parents=True)
            (place / "desc").write_text("disk")


def _of_class(devclass: str) -> list[Row]:
    service = f"admin.vm.device.{devclass}"
    stored = f"{service}.Assign+caller+x1 {{q}} mode='auto-attach'"
    line = rf"caller\+x1:\* device_id='\*' port_id='x1' devclass='{devclass}' .*mode='auto-attach'\n"
    unknown = ("+nobody+x1 {q}", "QubesVMNotFoundError")
    return [
        Row(f"{service}.Available {{q}}", "", f"{service}.Available+a+b {{q}}", "ProtocolError"),
        Row(
            f"{service}.Assigned {{q}}",
            line,
            f"{service}.Assigned+x1 {{q}}",
            "ProtocolError",
            before=(stored,),
        ),
        Row(f"{service}.Attached {{q}}", "", f"{service}.Attached+x1 {{q}}", "ProtocolError"),
        Row(
            f"{service}.List {{q}}",
            r"caller\+x1 persistent=True\n",
            f"{service}.List+x {{q}}",
            "ProtocolError",
            before=(stored,),
        ),
        Row(
            f"{service}.Assign+caller+x1 {{q}} mode='ask-to-attach' _note='a b'",
            "",
            f"{service}.Assign+caller+x1 {{q}} mode='manual'",
            "QubesValueError",
        ),
        Row(
            f"{service}.Unassign+caller+x1 {{q}}",
            "",
            f"{service}.Unassign+caller+x2 {{q}}",
            "DeviceNotAssigned",
            before=(stored,),
        ),
        Row(
            f"{service}.Set.assignment+caller+x1 {{q}} ask-to-attach",
            "",
            f"{service}.Set.assignment+caller+x1 {{q}} manual",
            "QubesUnrecognizedDeviceAssignmentMode",
            before=(stored,),
        ),
        Row(
            f"{service}.Set.persistent+caller+x1 {{q}} True",
            "",
            f"{service}.Set.persistent{unknown[0]} True",
            unknown[1],
        ),
        Row(
            f"{service}.Set.required+caller+x1 {{q}} True",
            "",
            f"{service}.Set.required+caller+x1 {{q}} maybe",
            "ProtocolError",
        ),
        *_attaching(devclass, service),
    ]


def _attaching(devclass: str, service: str) -> list[Row]:
    ready = ("admin.vm.property.Set+virt_mode {q} hvm", "admin.vm.Start {q}")
    device, second = _PRESENT[devclass]
    return [
        Row(
            f"{service}.Attach+{device} {{q}}",
            "",
            f"{service}.Attach+{device}9 {{q}}",
            "ProtocolError",
            before=ready,
            after=(f"{service}.Detach+{device} {{q}}",),
        ),
        Row(
            f"{service}.Detach+{second} {{q}}",
            "",
            f"{service}.Detach+{second}9 {{q}}",
            "DeviceNotAssigned",
            before=(*ready, f"{service}.Attach+{second} {{q}}"),
        ),
    ]


ROWS = [row for devclass in CLASSES for row in _of_class(devclass)]
