"""What a property is: a name, a type, a default and two rules, as one value of a table.

A value comes in two steps (``spec/admin-calls.md`` 3.5). ``coarse`` makes a typed value of untrusted bytes
and looks at nothing else, so that it can run before the permission is known. ``check`` then asks ``rule``,
which looks at the value alone and so holds for a stored file too, and ``fits``, which looks at the system as
it is now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from qubesd.errors import BadPropertyValue
from qubesd.model import forms
from qubesd.model.state import Qube, Value
from qubesd.model.view import View

PLAIN = 2
SYSTEM = 3
REFERRING = 4
"""Load stages, also the first key of every list's order: a qube's own facts, the global properties, and what
refers to other qubes or follows from them."""


class Settable(Enum):
    """Whether a property may be set: always, never, or only while its qube is made."""

    YES = "yes"
    NO = "no"
    ONCE = "once"


Default = Callable[[View, Any], Value]
"""A computed default. The owner is the qube, ``None`` for a global property."""
Rule = Callable[[Any], Value]
Fits = Callable[[View, Any, Any], Value]


def any_value(value: Value) -> Value:
    """The rule of a property that takes every value of its type."""
    return value


def fits_anywhere(view: View, owner: Qube | None, value: Value) -> Value:
    """The rule of a property whose values do not depend on the rest of the system."""
    return value


@dataclass(frozen=True, slots=True)
class Property:
    """One line of a table of properties (``spec/domains.md`` 3).

    ``type`` is the word on the wire: ``str``, ``int``, ``bool``, ``vm`` or ``label``. ``doc`` is one line of
    ASCII, the answer of Help. ``default`` is ``None`` where there is no default at all, which is not the same
    as a default of none. ``stored`` reads a property that a qube's record holds in a field of its own.
    ``guards_reset`` says that ``fits`` is asked of the default before a Reset, too.
    """

    name: str
    type: str
    doc: str
    coarse: Callable[[bytes], Value]
    default: Default | None = None
    stage: int = PLAIN
    settable: Settable = Settable.YES
    rule: Rule = any_value
    fits: Fits = fits_anywhere
    stored: Callable[[Qube], Value] | None = None
    resettable: bool = True
    guards_reset: bool = False

    def check(self, view: View, owner: Qube | None, value: Value) -> Value:
        """The value to store; pure.

        Raises:
            BadPropertyValue: the value breaks the property's own rule, or the property cannot be set.
            QubesError: the system as it is does not allow it; the class says why.
        """
        if self.settable is not Settable.YES:
            raise BadPropertyValue(f"property {self.name!r} cannot be set")
        return self.fits(view, owner, self.rule(value))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a property is now. ``has_value`` is false where it is neither set nor has a default."""

    value: Value
    is_default: bool
    has_value: bool = True


def text(name: str, doc: str, default: Default | None = None, **more: Any) -> Property:
    return Property(name, "str", doc, more.pop("coarse", forms.text), default, **more)


def number(name: str, doc: str, default: Default | None = None, **more: Any) -> Property:
    return Property(name, "int", doc, forms.integer, default, **more)


def flag(name: str, doc: str, default: Default | None = None, **more: Any) -> Property:
    return Property(name, "bool", doc, forms.boolean, default, **more)


def reference(name: str, doc: str, default: Default | None = None, **more: Any) -> Property:
    return Property(name, "vm", doc, forms.qube, default, more.pop("stage", REFERRING), **more)
