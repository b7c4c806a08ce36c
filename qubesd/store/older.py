"""Single elements that earlier versions wrote in another form (``spec/qubes-xml.md`` 1.1, 1.3, 1.4)."""

from __future__ import annotations

import re

from lxml import etree

_PROPERTIES = {
    ("dispvm_allowed", "True"): ("template_for_dispvms", "True"),
    ("dispvm_allowed", "False"): ("template_for_dispvms", "False"),
    ("hvm", "True"): ("virt_mode", "hvm"),
    ("hvm", "False"): ("virt_mode", "pv"),
}
"""Properties and values as earlier versions wrote them, and as they are written now."""


FIREWALL_NETVM = "default_fw_netvm"
"""A global property of earlier versions: the netvm of qubes that give network."""


_COLORS = {"0x555753": "0x555555"}
"""A gray that earlier versions had."""

_SEGMENT = re.compile(r"0000[:_](?=[0-9a-f]{2}[:_])")
"""The first segment of PCI, which a port leaves out."""


def color_of(text: str) -> str:
    """The colour of a label: written by stock as its caller sent it, blanks and all, and in its published
    schema as ``#rrggbb``."""
    color = text.strip()
    color = f"0x{color[1:]}" if color.startswith("#") else color
    return _COLORS.get(color, color)


def present_property(name: str, text: str) -> tuple[str, str]:
    """The name and the text of a property by which this version knows it."""
    return _PROPERTIES.get((name, text), (name, text))


def property_text(element: etree._Element) -> str:
    """The value of a ``<property>``: its text, or what earlier versions had in an attribute."""
    return element.get("ref", element.text or "")


def port_of(devclass: str, device: etree._Element) -> str:
    """The port of a ``<device>``, empty for none: a bus address was written with colons, and with the segment
    that most machines have only one of; no port has either now. What is behind a bridge has another port,
    which only the host can tell (``qubesd/core/bus_addresses.py``)."""
    port = device.get("id", "")
    return port_of_address(port) if devclass == "pci" else port


def port_of_address(address: str) -> str:
    """The port of a PCI device on a root bus, from its address."""
    return _SEGMENT.sub("", address).replace(":", "_")


def identity_of(device: etree._Element) -> str:
    """The identity that a ``<device>`` must have, ``*`` for any: it was an option once."""
    options = (option.text or "" for option in device.iterfind("option[@name='identity']"))
    return device.get("identity", next(options, "*"))
