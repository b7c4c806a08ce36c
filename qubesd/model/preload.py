"""Disposables made ahead: what the features of a template and of dom0 ask for (``spec/domains.md`` 6.5)."""

from __future__ import annotations

from qubesd.model.lineage import named
from qubesd.model.properties import read
from qubesd.model.references import makes_disposables, waiting
from qubesd.model.state import DOM0, Klass, Qube
from qubesd.model.view import View

MAX = "preload-dispvm-max"
DELAY = "preload-dispvm-delay"
THRESHOLD = "preload-dispvm-threshold"
IN_PROGRESS, COMPLETED = "preload-dispvm-in-progress", "preload-dispvm-completed"
INTERNAL = "internal"

_DELAY = 3.0
_MIB = 1 << 20


def wanted(view: View, template: Qube) -> int:
    """How many disposables of this template are to wait; dom0's number goes for the default one."""
    if not makes_disposables(template):
        return 0
    text = template.features.get(MAX, "")
    if read(view, None, "default_dispvm").value == template.name:
        text = view.system.qubes[DOM0].features.get(MAX, text)
    return int(text or "0")


def delay(template: Qube) -> float:
    """Seconds from the use of one until the next is made; a negative number means none either."""
    return max(0.0, float(template.features.get(DELAY) or _DELAY))


def kept_free(view: View) -> int:
    """Bytes of the host's memory that no disposable made ahead may take."""
    return int(view.system.qubes[DOM0].features.get(THRESHOLD) or "0") * _MIB


def is_ready(view: View, qube: Qube) -> bool:
    """Whether this disposable waits, started and paused, to be handed out."""
    return bool(qube.features.get(COMPLETED)) and view.running(qube.name).state == "Paused"


def template_of_waiting(view: View, name: str) -> Qube | None:
    """The template in whose queue the qube of that name is; ``None`` where it is in none."""
    qube = view.system.qubes.get(name)
    if qube is None or qube.klass is not Klass.DISPOSABLE:
        return None
    template = named(view.system, qube.properties.get("template"))
    return template if template is not None and name in waiting(template) else None
