"""What a policy can say of a call's argument and payload: which qube the one names, which values the other
gives.

A method declares this beside its parser. The canonical form is made of the typed value that the parser made
and the handler gets, and of nothing else: what was judged cannot be another value than what is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Names(Enum):
    """What the argument of a call names."""

    NOTHING = "nothing"
    QUBE = "qube"
    DEVICE = "device"
    """``BACKEND+PORT`` and what may follow, of which the backend is a qube."""


class Kind(Enum):
    """The type of a value."""

    TEXT = "text"
    NUMBER = "number"
    MEBIBYTES = "MiB"
    """A number of MiB, for which a policy may use other units."""
    QUBE = "qube"


Canonical = str | int | None
"""A value in its one form: a number, a text, the name of a qube; ``None`` for an empty one."""

SINGLE = ""
"""The key of the one value of a payload without keys."""

Keys = Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class Values:
    """A payload that policies can speak of.

    Attributes:
        keys: the keys that it may give and their types; a function where they depend on the argument (without
            the ``+``), which answers ``None`` for an argument that no call can have.
        canonical: by key, what the typed value gives. A key that is not there was not given and has no
            default. There may be more keys than ``keys`` tells of: who judges refuses those.
    """

    keys: Keys | Callable[[str], Keys | None]
    canonical: Callable[[Any], Mapping[str, Canonical]]

    def form(self, argument: str) -> Keys | None:
        """The keys of a call with this argument."""
        return self.keys(argument) if callable(self.keys) else self.keys


@dataclass(frozen=True, slots=True)
class Unspoken:
    """No policy can speak of the payload, and why."""

    reason: str


def plain(value: bool | str | int | None) -> Canonical:
    """The canonical form of one value: ``True`` and ``False`` are texts, an empty text is ``None``."""
    if isinstance(value, bool):
        return str(value)
    return None if value == "" else value


def alone(value: bool | str | int | None) -> Mapping[str, Canonical]:
    """The canonical form of a payload that is this one value."""
    return {SINGLE: plain(value)}


def one(kind: Kind) -> Values:
    """A payload that is one value of this type, as the parser gives it."""
    return Values({SINGLE: kind}, alone)
