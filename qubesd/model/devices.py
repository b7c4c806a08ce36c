"""Devices: what plugs in where, and which wish fits which device (``spec/devices.md`` 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from qubesd.model.state import Assignment

CLASSES = ("block", "mic", "pci", "usb")
"""The classes of devices that there are."""
ANY = "*"
UNKNOWN_INTERFACE = "?******"
MODES = ("auto-attach", "ask-to-attach", "required")
"""How an assignment that is stored is carried out."""
MANUAL = "manual"

_CODE = 7


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a qube exposes. Texts are empty where they are not known.

    ``interfaces`` are codes one after the other; ``parent`` is the port and the class of the device of the
    same backend that it is a part of; ``data`` is what its class tells besides.
    """

    devclass: str
    backend: str
    port: str
    identity: str
    vendor: str = ""
    product: str = ""
    manufacturer: str = ""
    name: str = ""
    serial: str = ""
    interfaces: str = UNKNOWN_INTERFACE
    parent: tuple[str, str] | None = None
    data: Mapping[str, str] = field(default_factory=_nothing)

    @property
    def description(self) -> str:
        """Words for a person."""
        words = " ".join(word for word in (self.vendor, self.product, self.name or self.serial) if word)
        return words or f"{self.devclass} device {self.port}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A device as a call names it: ``port`` or ``identity`` may be ``*``."""

    backend: str
    port: str
    identity: str = ANY

    def is_of(self, assignment: Assignment) -> bool:
        """Whether this is exactly what was assigned."""
        return (self.backend, self.port, self.identity) == (
            assignment.backend,
            assignment.port,
            assignment.identity,
        )


def fits(port: str, identity: str, device: Device) -> bool:
    """Whether a wish for this port and identity means the device."""
    return port in (ANY, device.port) and identity in (ANY, device.identity)


def by_precedence(assignments: Iterable[Assignment]) -> list[Assignment]:
    """The most specific ones first."""
    return sorted(assignments, key=lambda one: (one.port == ANY, one.identity == ANY))


def has_denied(denied: str, interfaces: str) -> bool:
    """Whether one of the patterns in ``denied`` matches one of the device's interfaces."""
    return any(_matches(pattern, code) for pattern in _codes(denied) for code in _codes(interfaces))


def _codes(text: str) -> list[str]:
    return [text[start : start + _CODE] for start in range(0, len(text), _CODE)]


def _matches(pattern: str, code: str) -> bool:
    return len(pattern) == len(code) and all(
        wanted in ("*", found) for wanted, found in zip(pattern, code, strict=True)
    )
