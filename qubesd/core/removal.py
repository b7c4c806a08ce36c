"""Removing qubes, and what forbids it (``spec/admin-calls.md`` 2.4).

Who refers to a qube is not for every caller to read; the log says it, the error does not.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from qubesd.core import waiting
from qubesd.core.draft import Draft
from qubesd.core.keeper import Keeper
from qubesd.core.storage import Storage
from qubesd.errors import QubeInUse, QubeNotHalted, QubesError
from qubesd.events import QubePreDelete, QubeRemoved
from qubesd.model.properties import GLOBALS, read, table
from qubesd.model.state import Klass, Qube

_log = logging.getLogger(__name__)


async def remove(keeper: Keeper, storage: Storage, qube: Qube) -> None:
    """Remove a halted qube, durably, and then its files. The caller holds the qube's lock.

    The event ahead of it is published also where the removal is then refused as in use, as stock does.

    Raises:
        QubeInUse: dom0, installed as a package, or something refers to it.
        QubeNotHalted: it runs.
        NoSuchQube: it has gone since it was looked up.
        StoreError: it could not be made durable; the qube is there as before.
    """
    qube = keeper.current(qube)
    _check_may_go(keeper, qube)
    async with storage.removing(qube):
        qube = keeper.current(qube)
        _check_may_go(keeper, qube)
        keeper.bus.publish(QubePreDelete(None, qube.name))
        user = next(users(keeper, qube.name), None)
        if user is not None:
            _log.info("qube %r was not removed: in use by %s", qube.name, user)
            raise QubeInUse(
                f"qube {qube.name!r} is in use by another qube or as a default; see the daemon's log"
            )
        draft = Draft(keeper)
        waiting.leave(draft, qube.name)
        draft.drop(qube.name)
        draft.tell(QubeRemoved(None, qube.name))
        draft.apply()
        await keeper.durable()


def _check_may_go(keeper: Keeper, qube: Qube) -> None:
    if qube.klass is Klass.ADMIN:
        raise QubeInUse("dom0 cannot be removed")
    if "installed_by_rpm" in table(qube.klass) and read(keeper, qube, "installed_by_rpm").value:
        raise QubeInUse(f"qube {qube.name!r} is installed as a package; remove the package instead")
    if qube.klass is not Klass.REMOTE and keeper.running(qube.name).state != "Halted":
        raise QubeNotHalted(f"qube {qube.name!r} is not halted; shut it down first")


def could_go(keeper: Keeper, qube: Qube, besides: Collection[str]) -> bool:
    """Whether the qube could be removed once the qubes of these names are gone."""
    try:
        _check_may_go(keeper, qube)
    except QubesError:
        return False
    return next(users(keeper, qube.name, besides), None) is None


def users(keeper: Keeper, name: str, besides: Collection[str] = ()) -> Iterator[str]:
    """What refers to the qube, in words: others' properties of their own, global ones by any way, devices;
    the qubes of the names in ``besides`` do not count."""
    system = keeper.system
    for line in GLOBALS.values():
        if line.type == "vm" and read(keeper, None, line.name).value == name:
            yield f"global property {line.name!r}"
    for other in map(system.qubes.__getitem__, keeper.referrers.of(name)):
        if other.name == name or other.name in besides:
            continue
        for prop, value in other.properties.items():
            # A file of another version may have left a property that no table knows.
            known = table(other.klass).get(prop)
            if value == name and known is not None and known.type == "vm":
                yield f"property {prop!r} of {other.name!r}"
        for assignment in other.assignments:
            if assignment.backend == name:
                yield f"a device assigned to {other.name!r}"
