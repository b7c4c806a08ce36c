"""Setting and resetting properties, of a qube and global ones, with the events ahead and after.

What else changes with a property, and whom that tells, is in ``consequences``.
"""

from __future__ import annotations

from qubesd.core import consequences
from qubesd.core.draft import Draft
from qubesd.core.keeper import Keeper
from qubesd.core.told import as_told, told
from qubesd.events import (
    PropertyDel,
    PropertyPreDel,
    PropertyPreReset,
    PropertyPreSet,
    PropertyReset,
    PropertySet,
)
from qubesd.model.properties import Settable, check_reset, find, read, read_default
from qubesd.model.state import Qube, Value


def setting(keeper: Keeper, owner: Qube | None, name: str, value: Value) -> Draft:
    """The draft that gives the property a value of its own; ``owner`` is ``None`` for a global one.

    Raises:
        NoSuchProperty: there is none of that name.
        BadPropertyValue: it cannot be set, or not to this value.
        QubesError: the system as it is does not allow it; the class says why.
    """
    draft = Draft(keeper)
    put_property(draft, None if owner is None else keeper.current(owner).name, name, value)
    return draft


def put_property(draft: Draft, subject: str | None, name: str, value: Value) -> None:
    """As a step of a larger change; ``subject`` is the qube's name. Raises as ``setting``."""
    owner = None if subject is None else draft.system.qubes[subject]
    value = find(owner, name).check(draft, owner, value)
    before = read(draft, owner, name)
    old, new = told(before), as_told(value)
    draft.tell(PropertyPreSet(subject, name, old, new))
    if owner is None:
        draft.system = draft.system.with_property(name, value)
        consequences.of_global_set(draft, name, before.value, value)
    else:
        draft.put(owner.with_property(name, value))
        consequences.of_set(draft, owner.name, name, before.value, value)
    draft.tell(PropertySet(subject, name, old, new))


def resetting(keeper: Keeper, owner: Qube | None, name: str) -> Draft:
    """The draft that takes the property's own value away, so that it has its default; also where it has it
    already. A property that is always computed has nothing to take away: that is an empty draft.

    Raises:
        NoSuchProperty: there is none of that name.
        BadValue: it has no default, or was fixed when the qube was made.
        QubesError: the system as it is does not allow it; the class says why.
    """
    owner = None if owner is None else keeper.current(owner)
    check_reset(keeper, owner, name)
    draft = Draft(keeper)
    if find(owner, name).settable is Settable.NO:
        return draft
    subject = None if owner is None else owner.name
    before, after = read(keeper, owner, name), read_default(keeper, owner, name)
    old = told(before)
    draft.tell(PropertyPreReset(subject, name, old))
    moved = name == "netvm" and before.value != after.value
    if moved:
        draft.tell(PropertyPreSet(subject, name, old, as_told(after.value)))
    draft.tell(PropertyPreDel(subject, name, old))
    if owner is None:
        draft.system = draft.system.without_property(name)
        consequences.of_global_reset(draft, name, before.value, after.value)
    else:
        draft.put(owner.without_property(name))
        if moved:
            consequences.of_new_netvm(draft, owner.name, after.value)
            draft.tell(PropertySet(owner.name, name, old, as_told(after.value)))
        consequences.of_reset(draft, owner.name, name, before.value, after.value)
    draft.tell(PropertyReset(subject, name, old))
    draft.tell(PropertyDel(subject, name, old))
    return draft
