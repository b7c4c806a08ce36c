"""Block devices of one qube as disks of another (``spec/devices.md`` 6)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from string import ascii_lowercase

from qubesd.errors import BadValue, QubesError
from qubesd.model import forms
from qubesd.model.devices import Device
from qubesd.model.state import DOM0
from qubesd.virt.hypervisor import Disk

_TARGET = re.compile(r"(xvd|sd)[a-z]{1,2}", re.ASCII)
_KINDS = ("disk", "cdrom")
OPTIONS = ("devtype", "frontend-dev", "read-only")
"""All that a block device takes."""
_FIRST = ascii_lowercase.index("i")
"""``xvdi``: those before it are for the qube's own volumes."""


def checked_options(options: Mapping[str, str]) -> dict[str, str]:
    """The options in their one form; ``BadValue`` for what a block device does not take."""
    found: dict[str, str] = {}
    for name, value in options.items():
        if (name == "frontend-dev" and _TARGET.fullmatch(value)) or (name == "devtype" and value in _KINDS):
            found[name] = value
        elif name == "read-only":
            found[name] = "yes" if forms.boolean(value.encode("ascii")) else "no"
        else:
            raise BadValue(f"a block device takes no option {name[:32]!r} of this value")
    return found


def disk_of(device: Device, options: Mapping[str, str], taken: Collection[str]) -> Disk:
    """The disk that the device is in its new qube.

    Args:
        options: as ``checked_options`` gives them. taken: the names that disks of the qube have.

    Raises:
        BadValue: it is to be written to and cannot, or the name is taken.
        QubesError: the qube has as many disks as there are names.
    """
    fixed = device.data.get("mode") == "r"
    if fixed and options.get("read-only") == "no":
        raise BadValue(f"device {device.backend}:{device.port} can only be read")
    cdrom = options.get("devtype") == "cdrom"
    free = (name for name in _targets(cdrom) if name not in taken)
    target = options.get("frontend-dev") or next(free, None)
    if target is None:
        raise QubesError("the qube has no name left for another disk")
    if target in taken:
        raise BadValue(f"the qube has a disk {target!r} already")
    return Disk(
        device.data["device_node"],
        target,
        rw=not fixed and options.get("read-only") != "yes",
        backend=None if device.backend == DOM0 else device.backend,
        cdrom=cdrom,
    )


def _targets(cdrom: bool) -> Iterator[str]:
    if cdrom:
        yield "xvdd"
    yield from (f"xvd{letter}" for letter in ascii_lowercase[_FIRST:])
    for first in ascii_lowercase:
        yield from (f"xvd{first}{second}" for second in ascii_lowercase)
