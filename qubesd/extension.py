"""What an extension is: the public interface, in one file. ``docs/extensions.md`` has a worked example.

An extension is a value. Its handlers are plain functions that the daemon calls in its one thread, each within
two seconds; what one of them raises besides a refusal is named in the log and hurts nobody but, where it
vetoes, the change that it was asked about, and, where it saves files, the backup that would lack them. Which
events there are is in ``qubesd.events``, ``qubesd.core.power_events``, ``qubesd.core.device_events`` and
``qubesd.core.guest_events``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isasyncgenfunction, iscoroutinefunction
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from qubesd.events import Event, WireEvent
from qubesd.model.state import Qube, Value
from qubesd.model.view import View

GROUP = "qubes_admin.extensions"
"""The group of entry points; each names an ``Extension``."""


class Change(View, Protocol):
    """A change in the making, as a view of the system that it will lead to. What is done here is part of it:
    durable with it or not at all, and told in order. A step that cannot be raises a ``QubesError``."""

    def set_feature(self, qube: str, name: str, value: str) -> None:
        """Nothing where the qube has it with this value; an empty one means "set, but false"."""

    def remove_feature(self, qube: str, name: str) -> None:
        """Nothing where the qube has no such feature."""

    def add_tag(self, qube: str, tag: str) -> None:
        """Nothing where the qube carries it."""

    def remove_tag(self, qube: str, tag: str) -> None:
        """Nothing where the qube does not carry it."""

    def set_property(self, qube: str, name: str, value: Value) -> None:
        """A property of the qube, by its rule; nothing where it has this very value of its own.

        The value is of the property's type, or the text that ``admin.vm.property.Set`` takes; ``None`` stands
        for no qube.
        """

    def tell(self, event: WireEvent) -> None:
        """Publish an event of the extension's own class along with those of the change, about a qube that is
        there (``subject``) or ``None`` for the system; its keys and values are texts."""


class Look(View, Protocol):
    """A view that also knows the other way round."""

    def users_of(self, name: str) -> Sequence[str]:
        """The qubes that name this one in a property of their own or as the backend of a device."""


S = TypeVar("S")
E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class On(Generic[S]):
    """A handler for the events of one class and of those below it; ``on`` makes it."""

    kind: type[Event]
    handler: Callable[[S, Any], None]


def on(kind: type[E], handler: Callable[[S, E], None]) -> On[S]:
    """Call ``handler`` with each event of this class, behind what the kind of handler works on."""
    return On(kind, handler)


@dataclass(frozen=True, slots=True)
class Extension:
    """What the daemon is to ask, tell and take over. Handlers are called in the order of their extensions'
    names.

    Attributes:
        vetoes: asked before anything happens. One refuses by raising a ``QubesError``, best a
            ``PermissionDenied``, whose text is for the caller, and lets pass by returning nothing; one that
            returns anything failed. Asked of events that are ``ahead`` or ``of_change``; where these
            tell of a change, the view is of the system as it would be.
        reactions: add steps to the change that tells the event, which is one of those that are ``kept``. One
            may be called for a change that is then refused, so it does nothing but these steps; where it
            fails, its steps are taken back.
        watches: told of what has happened.
        entries: what a running qube of this host is to find in its database because of the extension, by key
            (``/qubes-service/cups``). Asked when the qube starts, when something global has changed, and when
            something has about it, a qube that names it, its templates, its netvms, its guivm or audiovm;
            whether these run counts too. At most 1024 of 3072 bytes each, a key of one to four words.
        saved: which files are to be in a backup of the qube because of the extension, by their names in it:
            absolute paths of plain files of at most 4 MiB that are there. Asked of every qube but dom0 when
            a backup begins. One that fails, or names what cannot be saved, has the backup refused.
    """

    vetoes: tuple[On[View], ...] = ()
    reactions: tuple[On[Change], ...] = ()
    watches: tuple[On[View], ...] = ()
    entries: Callable[[Look, Qube], Mapping[str, str]] | None = None
    saved: Callable[[View, Qube], Mapping[str, Path]] | None = None

    def __post_init__(self) -> None:
        for field in ("vetoes", "reactions", "watches"):
            _check_handlers(field, getattr(self, field))
        for handler in (self.entries, self.saved):
            if handler is not None:
                _check_plain(handler)
        for veto in self.vetoes:
            if not (veto.kind.ahead or veto.kind.of_change):
                raise ValueError(f"{veto.kind.__name__} cannot be refused: it has happened")
        for reaction in self.reactions:
            if reaction.kind.ahead or not reaction.kind.kept:
                raise ValueError(f"nothing can be added to {reaction.kind.__name__}: no change tells it")


def _check_handlers(field: str, group: object) -> None:
    """Raises ``TypeError`` for what is hardly meant: a forgotten comma or ``on``, a handler that waits."""
    if not isinstance(group, tuple) or not all(isinstance(one, On) for one in group):
        raise TypeError(f"{field}: expected a tuple of on(EVENT, HANDLER), such as (on(DomainStart, greet),)")
    for one in group:
        _check_plain(one.handler)


def _check_plain(handler: object) -> None:
    if not callable(handler) or iscoroutinefunction(handler) or isasyncgenfunction(handler):
        raise TypeError(f"a handler is a plain function, and {handler!r} is none: nobody would wait for it")
