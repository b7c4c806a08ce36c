"""Which qubes name which others, kept the other way round.

A removal asks who refers to one qube among a thousand that do not.
"""

from __future__ import annotations

from collections.abc import Callable

from qubesd.events import Bus, QubeChanged, SystemChanged
from qubesd.model.properties import table
from qubesd.model.state import Qube, System


def references(qube: Qube) -> frozenset[str]:
    """The qubes that this one names in a property of its own or as the backend of a device."""
    lines = table(qube.klass)
    return frozenset(
        value
        for name, value in qube.properties.items()
        # A file of another version may have left a property that no table knows.
        if isinstance(value, str) and name in lines and lines[name].type == "vm"
    ).union(assignment.backend for assignment in qube.assignments)


class Referrers:
    """Made anew for the qubes that changed since it was last asked."""

    def __init__(self, bus: Bus, system: Callable[[], System]) -> None:
        self._system = system
        self._named: dict[str, frozenset[str]] = {}
        self._by: dict[str, set[str]] = {}
        self._stale: set[str] = set()
        self._all_stale = True
        bus.subscribe(QubeChanged, lambda event: self._stale.add(event.subject))
        bus.subscribe(SystemChanged, lambda event: self._spoil())

    def of(self, name: str) -> list[str]:
        """The qubes that name this one, which need not be there; it may be among them itself."""
        qubes = self._system().qubes
        if self._all_stale:
            self._stale = {*self._named, *qubes}
            self._all_stale = False
        for changed in self._stale:
            self._follow(changed, qubes.get(changed))
        self._stale.clear()
        return sorted(self._by.get(name, ()))

    def _spoil(self) -> None:
        self._all_stale = True

    def _follow(self, name: str, qube: Qube | None) -> None:
        before = self._named.pop(name, frozenset())
        now = frozenset[str]() if qube is None else references(qube)
        for gone in before - now:
            self._by[gone].discard(name)
            if not self._by[gone]:
                del self._by[gone]
        for new in now - before:
            self._by.setdefault(new, set()).add(name)
        if now:
            self._named[name] = now
