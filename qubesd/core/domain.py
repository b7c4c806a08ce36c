"""From a qube's properties to the domain that a hypervisor is asked for."""

from __future__ import annotations

from pathlib import Path

from qubesd.errors import QubeError
from qubesd.model import features
from qubesd.model.properties import read
from qubesd.model.state import Qube
from qubesd.model.view import View
from qubesd.virt.hypervisor import DomainSpec, Interface

_MIB = 1024 * 1024


def describe(view: View, qube: Qube, kernels: Path) -> DomainSpec:
    """The domain of a local qube as its properties are now; ``kernels`` is the directory of the kernels.

    Raises:
        QubeError: a property that a domain cannot be without has no value.
    """
    memory = number(view, qube, "memory")
    kernel = text(view, qube, "kernel")
    return DomainSpec(
        name=qube.name,
        uuid=qube.uuid,
        virt_mode=text(view, qube, "virt_mode"),
        memory=memory,
        maxmem=number(view, qube, "maxmem") or memory,
        vcpus=number(view, qube, "vcpus"),
        kernel=str(kernels / kernel) if kernel else None,
        kernelopts=_boot_options(view, qube),
        debug=read(view, qube, "debug").value is True,
        interfaces=interfaces(view, qube),
    )


def interfaces(view: View, qube: Qube) -> tuple[Interface, ...]:
    """The uplink of the qube, where it has one: to its netvm, with its own addresses."""
    netvm = read(view, qube, "netvm").value
    if netvm is None:
        return ()
    address = Interface(mac=text(view, qube, "mac"), ip=text(view, qube, "ip"), backend=str(netvm))
    return (address,)


def needed_memory(view: View, qube: Qube) -> int:
    """What a start takes from the host, in bytes: the qube's memory and its stub domain's."""
    stub = read(view, qube, "stubdom_mem").value if text(view, qube, "virt_mode") == "hvm" else None
    return (number(view, qube, "memory") + (stub if isinstance(stub, int) else 0)) * _MIB


def text(view: View, qube: Qube, name: str) -> str:
    """A property's text, empty for none."""
    value = read(view, qube, name).value
    return "" if value is None else str(value)


def number(view: View, qube: Qube, name: str) -> int:
    """A property's number; ``QubeError`` where it has none."""
    value = read(view, qube, name).value
    if not isinstance(value, int):
        raise QubeError(f"property {name!r} of qube {qube.name!r} has no value; set it first")
    return value


def _boot_options(view: View, qube: Qube) -> str:
    """The kernel's options and those that the boot mode adds."""
    options = text(view, qube, "kernelopts")
    if not text(view, qube, "kernel"):
        return options
    mode = text(view, qube, "bootmode")
    added = features.with_template(view, qube, f"boot-mode.kernelopts.{mode}")
    return f"{options} {added}" if added else options
