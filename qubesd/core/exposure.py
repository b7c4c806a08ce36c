"""What qubes expose to others: the block and USB devices that a running one announces, dom0's PCI devices and
its microphone (``spec/devices.md`` 6 and 7).

A guest announces its devices in its QubesDB. One folder for each qube stands for it, ``qubesdb/NAME`` in the
run directory, with a file for each key, and whoever brings the guests' databases to this host writes there.
What stands in it comes from a guest, whatever its name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from qubesd.core.guest_database import GuestDatabase
from qubesd.model.device_text import safe
from qubesd.model.devices import Device
from qubesd.model.state import DOM0, Qube
from qubesd.virt.hypervisor import PciDevice

_log = logging.getLogger(__name__)

ANNOUNCED = ("block", "usb")
"""The classes whose devices come and go while their qube runs."""
DATABASES = "qubesdb"
"""The folder of the databases, below the run directory."""

_MOST = 1024
"""Devices of one qube and class; what a guest announces beyond that is not looked at."""
_LONGEST = 256
"""Bytes of one value."""
_BLOCK_PORT = re.compile(r"[a-z0-9\-]{1,12}", re.ASCII)
_USB_PORT = re.compile(r"[0-9]{1,3}(-[0-9]{1,3}([._][0-9]{1,3}){0,6})?", re.ASCII)
_DESCRIPTION = re.compile(r"(?P<model>[^(]*)\((?P<label>.*)\)")
_UNSHOWN = re.compile(r"[^A-Za-z0-9()+,\-.:=_/ ]")
_PARENT = re.compile(r"([A-Za-z0-9._\-]{1,64})(?::([A-Za-z0-9._\-]{1,32}))?", re.ASCII)


def announced(databases: Path, qube: Qube, devclass: str) -> list[Device]:
    """The block or USB devices that a running qube announces, by port. Blocks on files only."""
    read = _block if devclass == "block" else _usb
    form = _BLOCK_PORT if devclass == "block" else _USB_PORT
    ports, nameless = [], 0
    for untrusted_port, value in _ports(GuestDatabase(databases / qube.name), f"/{key_of(devclass)}"):
        if form.fullmatch(untrusted_port) is None:
            nameless += 1
        else:
            ports.append((untrusted_port, value))
    if nameless:
        _log.warning("qube %r announces %d %s devices of no valid name", qube.name, nameless, devclass)
    found = [read(qube.name, port, value) for port, value in ports[:_MOST]]
    return sorted(found, key=lambda device: device.port)


def key_of(devclass: str) -> str:
    """The key under which a guest announces its devices of this class, without its slash."""
    return f"qubes-{devclass}-devices"


def of_host(devices: list[PciDevice]) -> list[Device]:
    """dom0's PCI devices, whose texts come from the host's tables but may be as odd as hardware is."""
    return [
        Device(
            "pci",
            DOM0,
            device.port,
            f"{device.vendor_id}:{device.product_id}::{device.interface}",
            vendor=_shown(device.vendor),
            product=_shown(device.product),
            interfaces=device.interface,
            data={"sbdf": device.address},
        )
        for device in devices
    ]


MICROPHONE = Device("mic", DOM0, "mic", "dom0:mic::m******", product="microphone", interfaces="m******")

Read = Callable[[str], str]
"""A value of one device that a guest announces, empty where there is none."""


def _ports(database: GuestDatabase, key: str) -> Iterator[tuple[str, Read]]:
    for untrusted_port in database.names(key, 2 * _MOST):
        yield untrusted_port, partial(_value, database, f"{key}/{untrusted_port}")


def _value(database: GuestDatabase, device: str, key: str) -> str:
    return (database.read(f"{device}/{key}", _LONGEST) or b"").decode("ascii", "replace")


def _block(backend: str, port: str, value: Read) -> Device:
    untrusted_size, untrusted_mode = value("size"), value("mode")
    above = _PARENT.fullmatch(value("parent"))
    interface = None if above is None else above[2]
    parent = None if above is None else (above[1], "block" if interface is None else "usb")
    model, label = _described(value("desc"))
    return Device(
        "block",
        backend,
        port,
        f"{parent[0] if parent else port}:{interface or _partition(port)}",
        manufacturer=f"sub-device of {backend}:{parent[0]}" if parent else f"hosted by {backend}",
        name=label,
        serial=model,
        interfaces="b******",
        parent=parent,
        data={
            "mode": "r" if untrusted_mode == "r" else "w",
            "size": untrusted_size if untrusted_size.isdecimal() else "0",
            "device_node": f"/dev/{port.replace('_', '/')}",
        },
    )


def _usb(backend: str, port: str, value: Read) -> Device:
    vendor, _, product = _shown(value("desc")).partition(" ")
    interfaces = "".join(re.findall(r"u[0-9a-f]{6}", value("interfaces")))[:70] or "u******"
    return Device(
        "usb",
        backend,
        port.replace("_", "."),
        f"{safe(vendor)}::{interfaces}".replace(" ", "_"),
        vendor=vendor,
        product=product,
        interfaces=interfaces,
    )


def _partition(port: str) -> str:
    digits = re.search(r"[0-9]+$", port)
    return digits[0] if digits else "None"


def _described(untrusted_text: str) -> tuple[str, str]:
    """Model and label of a description ``MODEL (LABEL)``."""
    found = _DESCRIPTION.fullmatch(untrusted_text)
    if found is None:
        return _shown(untrusted_text), ""
    return _shown(found["model"].replace("_", " ")).strip(), _shown(found["label"]).strip()


def _shown(untrusted_text: str) -> str:
    return _UNSHOWN.sub("_", untrusted_text)
