"""What there can be: the classes of qubes and of devices."""

from __future__ import annotations

from qubesd.api.method import Access, Command, Destination, Method, Reply, Rows, Scope, Unguarded
from qubesd.core.core import Core
from qubesd.model.state import Klass

DEVICE_CLASSES = ("block", "mic", "pci", "usb")

_CONSTANT = Unguarded("the same constant for everybody")


def list_qube_classes(core: Core, command: Command) -> Reply:
    return Rows({klass: f"{klass}\n" for klass in sorted(Klass)})


def list_device_classes(core: Core, command: Command) -> Reply:
    return Rows({klass: f"{klass}\n" for klass in DEVICE_CLASSES})


METHODS = (
    Method(
        "admin.vmclass.List",
        list_qube_classes,
        Scope.GLOBAL,
        Access.READ,
        _CONSTANT,
        destination=Destination.DOM0,
    ),
    Method(
        "admin.deviceclass.List",
        list_device_classes,
        Scope.GLOBAL,
        Access.READ,
        _CONSTANT,
        destination=Destination.DOM0,
    ),
)
