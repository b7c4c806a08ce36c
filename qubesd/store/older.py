"""What single elements mean that earlier versions wrote in another form (``spec/qubes-xml.md`` 1.3, 1.4)."""

from __future__ import annotations

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


def present_property(name: str, text: str) -> tuple[str, str]:
    """The name and the text of a property by which this version knows it."""
    return _PROPERTIES.get((name, text), (name, text))


def property_text(element: etree._Element) -> str:
    """The value of a ``<property>``: its text, or what earlier versions had in an attribute."""
    return element.get("ref", element.text or "")


def port_of(devclass: str, device: etree._Element) -> str:
    """The port of a ``<device>``, empty for none: a bus address was written with its colon, which no port has
    now."""
    port = device.get("id", "")
    return port.replace(":", "_") if devclass == "pci" else port


def identity_of(device: etree._Element) -> str:
    """The identity that a ``<device>`` must have, ``*`` for any: it was an option once."""
    options = (option.text or "" for option in device.iterfind("option[@name='identity']"))
    return device.get("identity", next(options, "*"))
