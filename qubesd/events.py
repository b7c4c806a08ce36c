"""Typed events, and the bus that carries them.

An event says what happened (or, for the ``Pre`` ones, what is about to); it carries text, the form in which its
values also go over the wire (``spec/wire-protocol.md`` 3.2). Subscribers name a class and get it and its
sub-classes. Publishing is synchronous and in order; a subscriber may refuse a ``Pre`` event by raising a
``QubesError``, and never blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """The root: ``subject`` is the qube it is about by name, ``None`` for the system as a whole."""

    subject: str | None

    @property
    def wire_name(self) -> str:
        """The full name on the wire, such as ``property-set:label``."""
        raise NotImplementedError

    def keys(self) -> tuple[tuple[str, str], ...]:
        """The keys and values on the wire, in order."""
        return ()


Subscriber = Callable[[Any], None]


class Bus:
    """Hands each published event to the subscribers of its class and of the classes above it."""

    def __init__(self) -> None:
        self._subscribers: dict[type[Event], tuple[Subscriber, ...]] = {}

    def subscribe(self, kind: type[Event], subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber`` with every event of this kind from now on; returns how to stop that."""
        self._subscribers[kind] = (*self._subscribers.get(kind, ()), subscriber)

        def unsubscribe() -> None:
            left = tuple(one for one in self._subscribers[kind] if one is not subscriber)
            self._subscribers[kind] = left

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Tell everybody, most special subscribers first."""
        for kind in type(event).__mro__:
            for subscriber in self._subscribers.get(kind, ()):
                subscriber(event)
