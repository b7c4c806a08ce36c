"""Which extensions every daemon has, by name; they need no installation of their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from qubesd.extension import Extension
from qubesd.extensions import announced, boot_modes, mirrored, relay, services, serving, supported

STOCK: Mapping[str, Extension] = MappingProxyType(
    {
        "announced": announced.EXTENSION,
        "audio": serving.AUDIO,
        "boot-modes": boot_modes.EXTENSION,
        "gui": serving.GUI,
        "persistence": mirrored.PERSISTENCE,
        "relay": relay.EXTENSION,
        "services": services.EXTENSION,
        "settings": mirrored.SETTINGS,
        "supported": supported.EXTENSION,
    }
)
