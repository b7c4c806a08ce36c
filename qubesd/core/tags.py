"""Tags: setting and removing them, those that follow a property, and what a creator's tag brings along.

A qube's name may hold a ``.``, a tag may not; where a tag would be made of such a name it is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from qubesd.core.draft import Draft
from qubesd.core.keeper import Keeper
from qubesd.core.told import as_told, told
from qubesd.errors import NoSuchTag
from qubesd.events import PropertyPreSet, PropertySet, TagAdded, TagRemoved
from qubesd.model.names import is_tag
from qubesd.model.properties import find, read, table
from qubesd.model.state import Qube, Value

CREATED_BY = "created-by-"
ORIGINS = (CREATED_BY, f"disp-{CREATED_BY}")
TRACKED = ("guivm", "audiovm", "relayvm")
"""Properties whose value a tag ``PROPERTY-QUBE`` repeats, so that policy can speak of it."""
BROUGHT_TAGS = "tag-created-vm-with"
BROUGHT_GUIVM = "set-created-guivm"
"""Features that say what a qube gives to those that it creates."""

Inherits = Callable[[str], bool]
"""Whether a disposable gets this tag of its template."""


def every_tag(tag: str) -> bool:
    """Stock's rule: a disposable gets all of them."""
    return True


def is_tracking(tag: str) -> bool:
    """Whether the tag repeats a property, so that it says something of the very qube that carries it."""
    return tag.startswith(tuple(f"{name}-" for name in TRACKED))


def add_tag(keeper: Keeper, qube: Qube, tag: str) -> None:
    """Put the tag on; nothing where the qube carries it."""
    qube = keeper.current(qube)
    if tag in qube.tags:
        return
    draft = Draft(keeper)
    if tag.startswith(CREATED_BY):
        creator = draft.system.qubes.get(tag.removeprefix(CREATED_BY))
        if creator is not None:
            inherit_from_creator(draft, qube.name, creator)
    put_tag(draft, qube.name, tag)
    draft.apply()


def remove_tag(keeper: Keeper, qube: Qube, tag: str) -> None:
    """Take the tag off; ``NoSuchTag`` where the qube does not carry it."""
    qube = keeper.current(qube)
    if tag not in qube.tags:
        raise NoSuchTag(f"no tag {tag[:64]!r} on qube {qube.name!r}")
    draft = Draft(keeper)
    drop_tag(draft, qube.name, tag)
    draft.apply()


def put_tag(draft: Draft, owner: str, tag: str) -> None:
    """As a step of a larger change; nothing where the qube carries it or it can be no tag."""
    qube = draft.system.qubes[owner]
    if tag not in qube.tags and is_tag(tag):
        draft.put(qube.with_tag(tag))
        draft.tell(TagAdded(owner, tag))


def drop_tag(draft: Draft, owner: str, tag: str) -> None:
    """As a step of a larger change; nothing where the qube does not carry it."""
    qube = draft.system.qubes[owner]
    if tag in qube.tags:
        draft.put(qube.without_tag(tag))
        draft.tell(TagRemoved(owner, tag))


def track(draft: Draft, owner: str, name: str, value: Value) -> None:
    """Make the tag of a tracked property repeat ``value``, a qube's name or none, and no other."""
    wanted = None if value is None else f"{name}-{value}"
    for tag in sorted(draft.system.qubes[owner].tags):
        if tag.startswith(f"{name}-") and tag != wanted:
            drop_tag(draft, owner, tag)
    if wanted is not None:
        put_tag(draft, owner, wanted)


def belong_to(draft: Draft, owner: str, creator: Qube, passing: bool) -> None:
    """Give a qube what says whose it is; ``passing`` is for one that goes with its run."""
    inherit_from_creator(draft, owner, creator)
    put_tag(draft, owner, f"{CREATED_BY}{creator.name}")
    if passing:
        put_tag(draft, owner, f"disp-{CREATED_BY}{creator.name}")


def inherit_from_creator(draft: Draft, owner: str, creator: Qube) -> None:
    """Give a qube what its creator's features for that say.

    Who created a qube is a fact, so no feature can say that it was somebody else.

    Raises:
        QubesError: the creator's feature names a GUI qube that cannot be one.
    """
    for tag in creator.features.get(BROUGHT_TAGS, "").split():
        if not tag.startswith(ORIGINS):
            put_tag(draft, owner, tag)
    guivm = creator.features.get(BROUGHT_GUIVM)
    qube = draft.system.qubes[owner]
    if guivm and "guivm" in table(qube.klass):
        value = find(qube, "guivm").check(draft, qube, guivm)
        old, new = told(read(draft, qube, "guivm")), as_told(value)
        draft.tell(PropertyPreSet(owner, "guivm", old, new))
        draft.put(qube.with_property("guivm", value))
        track(draft, owner, "guivm", value)
        draft.tell(PropertySet(owner, "guivm", old, new))
