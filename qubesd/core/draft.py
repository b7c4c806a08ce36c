"""A change in the making: the system as it will be, and the events that tell of it.

A verb of the core builds a draft, step by step, and applies it at the end. Until then nothing has happened,
so a refused step leaves no trace; a draft is a ``View``, so computed values can be read as they will be.
"""

from __future__ import annotations

from typing import NamedTuple

from qubesd.core.keeper import Keeper
from qubesd.events import Event
from qubesd.model.state import Qube, System
from qubesd.model.view import Host, Running


class Mark(NamedTuple):
    """A state of a draft."""

    system: System
    events: int
    touched: tuple[str, ...]


class Draft:
    """Begins as the keeper's present system; no ``await`` may stand between that and ``apply``."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self._before = keeper.system
        self._events: list[Event] = []
        self._touched: dict[str, None] = {}
        self.system: System = keeper.system

    @property
    def host(self) -> Host:
        return self.keeper.host

    def running(self, name: str) -> Running:
        return self.keeper.running(name)

    def kernels(self) -> frozenset[str]:
        return self.keeper.kernels()

    def kernel_options(self, version: str, pci: bool) -> str | None:
        return self.keeper.kernel_options(version, pci)

    def put(self, qube: Qube) -> Qube:
        """Add the qube, or put it in the place of the one of its name."""
        self.system = self.system.with_qube(qube)
        self._touched[qube.name] = None
        return qube

    def drop(self, name: str) -> None:
        self.system = self.system.without_qube(name)
        self._touched[name] = None

    def tell(self, event: Event) -> None:
        """Publish this event when the draft is applied, after those told before it. What extensions add
        because of it is told before it, as stock does, except where it is the ``cause``."""
        if event.cause:
            self._events.append(event)
        if not event.ahead:
            self.keeper.react(self, event)
        if not event.cause:
            self._events.append(event)

    def mark(self) -> Mark:
        """Where the draft stands, to go ``back`` to."""
        return Mark(self.system, len(self._events), tuple(self._touched))

    def back(self, mark: Mark) -> None:
        """Take back all that was put and told since."""
        self.system = mark.system
        del self._events[mark.events :]
        self._touched = dict.fromkeys(mark.touched)

    def apply(self, limited: bool = True) -> None:
        """Make it so: first the events ahead of the change, then the change, then all the other events.

        Args:
            limited: whether owners' limits and extensions' vetoes hold; they do not where this only tells
                what is so already.

        Raises:
            OverLimit: it would take an owner beyond a limit; nothing has changed.
            QubesError: an extension refused it; nothing has changed.
        """
        if limited:
            self.keeper.budgets.check(self, self._touched)
            for event in self._events:
                self.keeper.judge(self, event)
        events = iter(self._events)
        first_after: list[Event] = []
        for event in events:
            if not event.ahead:
                first_after.append(event)
                break
            self.keeper.bus.tell(event)
        if self.keeper.system is not self._before:
            raise RuntimeError("the system changed while a draft of it was being applied")
        everything = (
            self.system.properties is not self._before.properties
            or self.system.labels is not self._before.labels
            or self.system.pools is not self._before.pools
        )
        self.keeper.change(self.system, self._touched, everything)
        for event in (*first_after, *events):
            self.keeper.bus.tell(event)
