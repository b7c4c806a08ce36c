"""The host's PCI devices, from libvirt's list of its devices.

A device's port is the way to it from its root bus, so that it stays when buses are numbered anew
(``spec/devices.md`` 7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lxml import etree

from qubesd.virt.hypervisor import PciDevice

_NAME = re.compile(r"pci_([0-9a-f]{4})_([0-9a-f]{2})_([0-9a-f]{2})_([0-7])")
_HEX = re.compile(r"0x[0-9a-f]{4}")
_CLASS = re.compile(r"0x([0-9a-f]{6})")
_DEEPEST = 32
"""Bridges on one way; more would be a loop."""


def pci_devices(documents: Iterable[str]) -> list[PciDevice]:
    """Those of the devices, each described by a document, that are on a PCI bus, in order of their ports."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    elements = [etree.fromstring(document.encode(), parser) for document in documents]
    by_name = {element.findtext("name", ""): element for element in elements}
    found = [
        _described(match, element, _port(name, by_name))
        for name, element in by_name.items()
        if (match := _NAME.fullmatch(name))
    ]
    return sorted(found, key=lambda device: device.port)


def _port(name: str, by_name: dict[str, etree._Element]) -> str:
    steps: list[str] = []
    while (match := _NAME.fullmatch(name)) and len(steps) < _DEEPEST:
        segment, bus, device, function = match.groups()
        steps.append(("" if segment == "0000" else f"{segment}_") + f"{bus}_{device}.{function}")
        element = by_name.get(name)
        name = "" if element is None else element.findtext("parent", "")
    # Only the root bus has a number of its own; those behind bridges are numbered as they are found.
    behind = [re.sub(r"[0-9a-f]{2}(?=_[0-9a-f]{2}\.)", "00", step) for step in steps[:-1]]
    return "-".join([steps[-1], *reversed(behind)])


def _described(match: re.Match[str], element: etree._Element, port: str) -> PciDevice:
    segment, bus, device, function = match.groups()
    pci = element.find("capability[@type='pci']")
    code = _CLASS.fullmatch("" if pci is None else pci.findtext("class", ""))
    return PciDevice(
        port,
        f"{segment}:{bus}:{device}.{function}",
        _id(pci, "vendor"),
        _id(pci, "product"),
        "" if pci is None else pci.findtext("vendor", "").strip(),
        "" if pci is None else pci.findtext("product", "").strip(),
        f"p{code[1]}" if code else "p******",
    )


def _id(pci: etree._Element | None, what: str) -> str:
    element = None if pci is None else pci.find(what)
    text = "" if element is None else str(element.get("id", "")).lower()
    return text if _HEX.fullmatch(text) else "0x0000"
