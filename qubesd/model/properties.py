"""The properties of qubes and of the system: their tables, and what each is now.

An ``owner`` is the qube; ``None`` stands for the system, whose properties are the global ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from qubesd.errors import BadPropertyValue, BadValue, NoSuchProperty
from qubesd.model.property import Property, Reading, Settable
from qubesd.model.qube_properties import TABLES
from qubesd.model.state import Klass, Qube, Value
from qubesd.model.system_properties import GLOBALS
from qubesd.model.view import View

__all__ = [
    "GLOBALS",
    "Property",
    "Reading",
    "Settable",
    "check_reset",
    "find",
    "read",
    "read_default",
    "table",
    "text",
]

_NOTHING = Reading(None, is_default=True, has_value=False)


def table(klass: Klass) -> Mapping[str, Property]:
    """The properties of a class in list order: by load stage, then by name. The same object every time."""
    return TABLES[klass]


def find(owner: Qube | None, name: str) -> Property:
    """The property of that name; ``NoSuchProperty`` where the owner has none."""
    try:
        return GLOBALS[name] if owner is None else TABLES[owner.klass][name]
    except KeyError:
        raise NoSuchProperty(f"no property {name[:64]!r}") from None


def read(view: View, owner: Qube | None, name: str) -> Reading:
    """What the property is now. Takes the same time however many qubes there are.

    Raises:
        NoSuchProperty: the owner has no property of that name.
    """
    line = find(owner, name)
    explicit = view.system.properties if owner is None else owner.properties
    if name in explicit:
        return Reading(explicit[name], is_default=False)
    if line.stored is not None and owner is not None and owner.klass is not Klass.ADMIN:
        return Reading(line.stored(owner), is_default=False)
    return _default(view, owner, line)


def read_default(view: View, owner: Qube | None, name: str) -> Reading:
    """What the property is after a Reset; ``has_value`` is false where it has no default.

    Raises:
        NoSuchProperty: the owner has no property of that name.
    """
    return _default(view, owner, find(owner, name))


def check_reset(view: View, owner: Qube | None, name: str) -> None:
    """Refuse a Reset that would leave a qube without what it needs, or the system in a state that Set
    refuses.

    Raises:
        NoSuchProperty: the owner has no property of that name.
        BadPropertyValue: the property is fixed when a qube is made.
        QubesError: as ``Property.check`` for the default.
    """
    line = find(owner, name)
    if line.settable is Settable.ONCE:
        raise BadPropertyValue(f"property {name!r} cannot be reset")
    if not line.resettable:
        raise BadValue(f"property {name!r} has no default")
    if line.guards_reset and line.default is not None:
        line.fits(view, owner, line.default(view, owner))


def text(value: Value) -> str:
    """A value as it stands on the wire and in the file; none is empty."""
    return "" if value is None else str(value)


def _default(view: View, owner: Qube | None, line: Property) -> Reading:
    if line.default is not None:
        return Reading(line.default(view, owner), is_default=True)
    # Who and what dom0 is counts as its default.
    if line.stored is not None and owner is not None and owner.klass is Klass.ADMIN:
        return Reading(line.stored(owner), is_default=True)
    return _NOTHING
