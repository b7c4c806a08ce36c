"""The bus that carries events to whoever asked for their kind.

Publishing is synchronous and in order, and a subscriber never blocks or raises. What an event that is ahead
announces may be refused by who judges for the bus, before anybody is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qubesd.events import Event

Subscriber = Callable[[Any], None]


def nobody(event: Event) -> None:
    """Judge nothing."""


class Bus:
    """Hands each published event to the subscribers of its class and of the classes above it."""

    def __init__(self) -> None:
        self._subscribers: dict[type[Event], tuple[Subscriber, ...]] = {}
        self.judge: Callable[[Event], None] = nobody
        """Raises a ``QubesError`` to refuse what an event announces."""

    def subscribe(self, kind: type[Event], subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber`` with every event of this kind from now on; returns how to stop that."""
        self._subscribers[kind] = (*self._subscribers.get(kind, ()), subscriber)

        def unsubscribe() -> None:
            left = tuple(one for one in self._subscribers[kind] if one is not subscriber)
            self._subscribers[kind] = left

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Have what it announces judged, if it is ahead of that, and tell everybody.

        Raises:
            QubesError: it was refused, and nobody was told.
        """
        if event.ahead:
            self.judge(event)
        self.tell(event)

    def tell(self, event: Event) -> None:
        """Tell everybody, most special subscribers first."""
        for kind in type(event).__mro__:
            for subscriber in self._subscribers.get(kind, ()):
                subscriber(event)
