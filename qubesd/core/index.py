"""What many qubes hold, kept the other way round: which qubes hold a given thing.

A removal asks who refers to one qube among a thousand that do not, and a volume's owner is asked for by the
volume.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from qubesd.bus import Bus
from qubesd.events import QubeChanged, SystemChanged
from qubesd.model.properties import table
from qubesd.model.state import Qube, System

K = TypeVar("K", bound=Hashable)


def references(qube: Qube) -> frozenset[str]:
    """The qubes that this one names in a property of its own or as the backend of a device."""
    lines = table(qube.klass)
    return frozenset(
        value
        for name, value in qube.properties.items()
        # A file of another version may have left a property that no table knows.
        if isinstance(value, str) and name in lines and lines[name].type == "vm"
    ).union(assignment.backend for assignment in qube.assignments)


def vids(qube: Qube) -> frozenset[tuple[str, str]]:
    """The pool and vid of each of its volumes, and each pool with an empty vid."""
    own = {(volume.pool, volume.vid) for volume in qube.volumes.values()}
    return frozenset(own | {(pool, "") for pool, _ in own})


class Index(Generic[K]):
    """Made anew for the qubes that changed since it was last asked; ``things`` are those that one holds."""

    def __init__(
        self, bus: Bus, system: Callable[[], System], things: Callable[[Qube], frozenset[K]]
    ) -> None:
        self._system = system
        self._things = things
        self._held: dict[str, frozenset[K]] = {}
        self._by: dict[K, set[str]] = {}
        self._stale: set[str] = set()
        self._all_stale = True
        bus.subscribe(QubeChanged, lambda event: self._stale.add(event.subject))
        bus.subscribe(SystemChanged, lambda event: self._spoil())

    def of(self, thing: K) -> list[str]:
        """The names of the qubes that hold it, in order."""
        qubes = self._system().qubes
        if self._all_stale:
            self._stale = {*self._held, *qubes}
            self._all_stale = False
        for changed in self._stale:
            self._follow(changed, qubes.get(changed))
        self._stale.clear()
        return sorted(self._by.get(thing, ()))

    def _spoil(self) -> None:
        self._all_stale = True

    def _follow(self, name: str, qube: Qube | None) -> None:
        before = self._held.pop(name, frozenset[K]())
        now = frozenset[K]() if qube is None else self._things(qube)
        for gone in before - now:
            self._by[gone].discard(name)
            if not self._by[gone]:
                del self._by[gone]
        for new in now - before:
            self._by.setdefault(new, set()).add(name)
        if now:
            self._held[name] = now
