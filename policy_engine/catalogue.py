"""What the delegation dialect knows of the Admin API, handed to the engine as data.

The engine imports nothing of the method table; whoever loads a policy makes a catalogue of it. A call that is
not in the catalogue is a service like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

ACCESSES = ("read", "write", "execute")
SCOPES = ("local", "global")

GUARDED = ("admin.", "policy.")
"""Services that a glob covers only where its text begins like this as well."""


def guard_of(service: str) -> str:
    """The one of ``GUARDED`` that a service begins with; empty where it is none of theirs."""
    if not service.startswith(GUARDED):
        return ""
    return next(guard for guard in GUARDED if service.startswith(guard))


class Names(Enum):
    """What the argument of a call names."""

    NOTHING = "nothing"
    QUBE = "qube"
    DEVICE = "device"
    """``BACKEND+PORT`` and what may follow; the qube is the backend."""

    def of(self, argument: str) -> str | None:
        """The name of the qube in an argument without its ``+``; ``None`` where it names none."""
        if self is Names.NOTHING or not argument:
            return None
        return argument if self is Names.QUBE else argument.partition("+")[0] or None


class Kind(Enum):
    """The type of a value that a payload gives, as ``value=`` speaks of it."""

    TEXT = "text"
    NUMBER = "number"
    MEBIBYTES = "MiB"
    """A number of MiB: ``1GiB`` is 1024."""
    QUBE = "qube"


Value = str | int | None
"""A value in its canonical form: a number, a text, the name of a qube; ``None`` where none was given."""

SINGLE = ""
"""The key of the one value of a call whose payload has no keys."""

Form = Callable[[str], Mapping[str, Kind] | None]
"""The keys that a payload may give and the types of their values, by the call's argument, without the ``+``;
``None`` where the policy cannot speak of the payload."""


def no_form(argument: str) -> None:
    """The form of a call whose payload is missing, or a text of which policy says nothing."""


def alters_nothing(argument: str) -> None:
    """What a call changes that policies build on: nothing."""


def never(argument: str) -> bool:
    """Of a call that policies may grant whatever its argument is."""
    return False


@dataclass(frozen=True, slots=True)
class Entry:
    """One call of the catalogue.

    Attributes:
        scope: ``local`` or ``global``.
        access: ``read``, ``write`` or ``execute``.
        names: what its argument names.
        form: how ``value=`` may speak of its payload.
        alters: what a call with this argument changes that rules may build on: a selector's token
            (``@tag:work``), ``@label`` or ``@template`` for those of the destination, ``@served-by`` for the
            qubes that show, play or relay for it; ``None`` for nothing.
        reserved: whether a call with this argument is dom0's alone.
        takes_payload: whether there may be a payload at all.
        needs_core: only a daemon with a core can judge it in full: it names qubes besides its destination, or
            its answer has rows.
    """

    scope: Literal["local", "global"]
    access: Literal["read", "write", "execute"]
    names: Names = Names.NOTHING
    form: Form = no_form
    alters: Callable[[str], str | None] = alters_nothing
    reserved: Callable[[str], bool] = never
    takes_payload: bool = False
    needs_core: bool = False


@dataclass(frozen=True)
class Catalogue:
    """All calls of the Admin API.

    Attributes:
        entries: by service.
        enforced: whether whoever decides by the policy also carries the calls out, and so checks values,
            subjects, limits and rows.
    """

    entries: Mapping[str, Entry]
    enforced: bool

    def of_set(self, access: str, scope: str | None) -> Iterator[str]:
        """The services that ``@ACCESS`` or, with a scope, ``@ACCESS:SCOPE`` stands for."""
        for service, entry in self.entries.items():
            if entry.access == access and scope in (None, entry.scope):
                yield service
