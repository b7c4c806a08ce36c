"""What a qube is made from and connected through: its template and its netvm, and theirs in turn.

A stored system has no loops in either chain (both are checked before a change, and cut or refused on load).
The walk along netvms ends at the first repetition all the same, so that no mistake elsewhere can hang the
daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qubesd.model.state import Klass, Qube, System, Value
from qubesd.model.view import View

_NETWORKED = frozenset((Klass.TEMPLATE, Klass.APP, Klass.STANDALONE, Klass.DISPOSABLE))


def own(view: View, qube: Qube, name: str, default: Callable[[View, Qube], Value]) -> Value:
    """The qube's explicit value, else what ``default`` computes for it."""
    return qube.properties[name] if name in qube.properties else default(view, qube)


def named(system: System, name: Value) -> Qube | None:
    """The qube that a qube-typed value stands for; ``None`` for none."""
    return system.qubes.get(name) if isinstance(name, str) else None


def template_of(system: System, qube: Qube) -> Qube | None:
    """The template; ``None`` for the classes that have none."""
    return named(system, qube.properties.get("template"))


def default_netvm(view: View, qube: Qube) -> Value:
    """Where the network comes from unless said otherwise: for a template nowhere, else the global default."""
    return _default_netvm(view.system, qube)


def netvm_of(system: System, qube: Qube) -> Qube | None:
    """The qube that gives this one its network; ``None`` for none."""
    if qube.klass not in _NETWORKED:
        return None
    explicit = qube.properties
    return named(system, explicit["netvm"] if "netvm" in explicit else _default_netvm(system, qube))


def follows_default_netvm(qube: Qube) -> bool:
    """Whether a change of the global ``default_netvm`` changes this qube's netvm."""
    return qube.klass in _NETWORKED and qube.klass is not Klass.TEMPLATE and "netvm" not in qube.properties


def templates(system: System, qube: Qube) -> Iterator[Qube]:
    """The qube itself, its template, its template's template."""
    step: Qube | None = qube
    while step is not None:
        yield step
        step = template_of(system, step)


def netvms(system: System, qube: Qube) -> Iterator[Qube]:
    """The qube itself, its netvm, its netvm's netvm."""
    seen = set()
    step: Qube | None = qube
    while step is not None and step.name not in seen:
        yield step
        seen.add(step.name)
        step = netvm_of(system, step)


def _default_netvm(system: System, qube: Qube) -> Value:
    return None if qube.klass is Klass.TEMPLATE else system.properties.get("default_netvm")
