"""Setting and removing features, and what else changes with them (``spec/domains.md`` 4)."""

from __future__ import annotations

from qubesd.core.draft import Draft
from qubesd.core.keeper import Keeper
from qubesd.core.told import as_told, told
from qubesd.errors import NoSuchFeature
from qubesd.events import (
    FeatureDelete,
    FeaturePreDelete,
    FeaturePreSet,
    FeatureSet,
    PropertyDel,
    PropertyReset,
    PropertySet,
)
from qubesd.model import features
from qubesd.model.properties import check_reset, find, read, table
from qubesd.model.state import Qube

_FOLLOWING = {"boot-mode.active": "bootmode", "boot-mode.appvm-default": "appvm_default_bootmode"}
"""Properties whose computed default a feature decides."""


def set_feature(keeper: Keeper, qube: Qube, name: str, value: str) -> None:
    """Give the feature a value; an empty one means "set, but false".

    Raises:
        BadValue: the rule of this name does not allow the value.
    """
    qube = keeper.current(qube)
    features.check(keeper, qube, name, value)
    draft = Draft(keeper)
    put_feature(draft, qube.name, name, value)
    draft.apply()


def remove_feature(keeper: Keeper, qube: Qube, name: str) -> None:
    """Take the feature away; ``NoSuchFeature`` where the qube has none of that name, and then no event."""
    qube = keeper.current(qube)
    if name not in qube.features:
        raise NoSuchFeature(f"no feature {name[:64]!r} on qube {qube.name!r}")
    draft = Draft(keeper)
    drop_feature(draft, qube.name, name)
    draft.apply()


def put_feature(draft: Draft, owner: str, name: str, value: str) -> None:
    """As a step of a larger change; the value is known to keep the rules."""
    qube = draft.system.qubes[owner]
    old = qube.features.get(name)
    draft.tell(FeaturePreSet(owner, name, value, old))
    if name == features.BALANCED:
        _set_balanced(draft, qube, value)
    else:
        draft.put(qube.with_feature(name, value))
    draft.tell(FeatureSet(owner, name, value, old))
    _tell_following(draft, qube, name)


def drop_feature(draft: Draft, owner: str, name: str) -> None:
    """As a step of a larger change; nothing where the qube has no such feature."""
    qube = draft.system.qubes[owner]
    if name in qube.features:
        draft.tell(FeaturePreDelete(owner, name))
        draft.put(qube.without_feature(name))
        draft.tell(FeatureDelete(owner, name))
        _tell_following(draft, qube, name)


def _set_balanced(draft: Draft, qube: Qube, value: str) -> None:
    """``service.meminfo-writer`` is no feature but an older way to speak of ``maxmem``, by its rules."""
    if value:
        check_reset(draft, qube, "maxmem")
    else:
        find(qube, "maxmem").check(draft, qube, 0)
    old = told(read(draft, qube, "maxmem"))
    draft.put(features.apply(qube, features.BALANCED, value))
    if value:
        draft.tell(PropertyReset(qube.name, "maxmem", old))
        draft.tell(PropertyDel(qube.name, "maxmem", old))
    else:
        draft.tell(PropertySet(qube.name, "maxmem", old, as_told(0)))


def _tell_following(draft: Draft, qube: Qube, name: str) -> None:
    following = _FOLLOWING.get(name)
    if following is not None and following in table(qube.klass):
        draft.tell(PropertyReset(qube.name, following))
