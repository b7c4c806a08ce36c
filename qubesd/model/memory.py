"""How much memory a qube has and may get (``spec/domains.md`` 3.6); all figures are in MiB."""

from __future__ import annotations

from qubesd.errors import BadPropertyValue, QubeNotHalted
from qubesd.model import features
from qubesd.model.boot import has_pci, virt_mode
from qubesd.model.lineage import own, template_of
from qubesd.model.settings import constant, inherited
from qubesd.model.state import Qube, Value
from qubesd.model.view import View

_DOM0 = 4096
"""What dom0 is taken to have where the hypervisor does not tell."""
MIB = 1 << 20
_MOST = 4000
_GROWTH = 10

memory = inherited("memory", constant(400))


def maxmem_rule(value: int) -> Value:
    if value < 0:
        raise BadPropertyValue(f"expected 0 or more MiB, found {value}")
    return value


def maxmem(view: View, qube: Qube) -> Value:
    """What the qube may grow to; 0 where its memory cannot move."""
    if not view.host.balances_memory or has_pci(qube):
        return 0
    if own(view, qube, "virt_mode", virt_mode) == "hvm" and not _tells_its_memory(view, qube):
        return 0
    template = template_of(view.system, qube)
    if template is not None:
        return own(view, template, "maxmem", maxmem)
    start = own(view, qube, "memory", memory)
    linux = features.with_template(view, qube, "os") == "Linux"
    most = start * _GROWTH if linux and isinstance(start, int) else _MOST
    return min(most, view.host.memory // 2)


def most(view: View, qube: Qube) -> int:
    """What the qube may come to have while it runs, in bytes: a ``maxmem`` of 0 hides no memory."""
    sizes = own(view, qube, "memory", memory), own(view, qube, "maxmem", maxmem)
    return max(size for size in (*sizes, 0) if isinstance(size, int)) * MIB


def set_to(qube: Qube) -> tuple[int, ...]:
    """The values of its own that it has for that, in MiB."""
    values = (qube.properties.get(name) for name in ("memory", "maxmem"))
    return tuple(value for value in values if isinstance(value, int))


def maxmem_fits(view: View, owner: Qube, value: int) -> Value:
    """The limit is part of the domain as it was started."""
    if value != own(view, owner, "maxmem", maxmem) and view.running(owner.name).state != "Halted":
        raise QubeNotHalted(f"qube {owner.name!r} is not halted: its 'maxmem' changes only then")
    return value


def dom0_maxmem(view: View, qube: Qube) -> Value:
    return view.host.memory or _DOM0


def _tells_its_memory(view: View, qube: Qube) -> bool:
    return bool(
        features.with_template(view, qube, "qrexec")
        or features.with_template(view, qube, "supported-service.meminfo-writer")
    )
