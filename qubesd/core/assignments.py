"""Which devices a qube is to have, as stored (``spec/devices.md`` 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qubesd.core.device_events import (
    DeviceAssign,
    DeviceAssignmentChanged,
    DevicePreAssign,
    DeviceUnassign,
)
from qubesd.core.draft import Draft
from qubesd.core.keeper import Keeper
from qubesd.errors import BadValue, DeviceAlreadyAssigned, DeviceNotAssigned, QubesError
from qubesd.model.devices import MANUAL, Device, Wanted, by_precedence, fits
from qubesd.model.state import Assignment, Klass, Qube


def of_class(qube: Qube, devclass: str) -> list[Assignment]:
    return [one for one in qube.assignments if one.devclass == devclass]


def find(qube: Qube, devclass: str, wanted: Wanted) -> Assignment | None:
    """The assignment of exactly this; ``None`` where there is none."""
    return next((one for one in of_class(qube, devclass) if wanted.is_of(one)), None)


def means(wish: Assignment, device: Device) -> bool:
    return wish.backend == device.backend and fits(wish.port, wish.identity, device)


def wish_for(qube: Qube, device: Device) -> Assignment | None:
    """The most special assignment by which the qube is to have the device."""
    wishes = by_precedence(of_class(qube, device.devclass))
    return next((wish for wish in wishes if means(wish, device)), None)


async def assign(
    keeper: Keeper, qube: Qube, devclass: str, wanted: Wanted, mode: str, options: Mapping[str, str]
) -> None:
    """Store a wish; nothing is attached by that.

    Raises:
        BadValue: only what is stored can be assigned, which ``manual`` is not.
        DeviceAlreadyAssigned: exactly this is assigned.
        QubesError: the qube is on another host.
    """
    qube = keeper.current(qube)
    refuse_remote(qube)
    if mode == MANUAL:
        raise BadValue("a device is assigned with mode auto-attach, ask-to-attach or required")
    if find(qube, devclass, wanted) is not None:
        raise DeviceAlreadyAssigned(f"this device is assigned to qube {qube.name!r} already")
    new = Assignment(devclass, wanted.backend, wanted.port, wanted.identity, mode, dict(options))
    draft = Draft(keeper)
    told = (qube.name, devclass, wanted.backend, wanted.port, wanted.identity, repr(dict(options)))
    draft.tell(DevicePreAssign(*told))
    draft.put(replace(qube, assignments=(*qube.assignments, new)))
    draft.tell(DeviceAssign(*told))
    draft.apply()
    await keeper.durable()


async def unassign(keeper: Keeper, qube: Qube, devclass: str, wanted: Wanted) -> None:
    """Forget a wish; what is attached stays. Raises ``DeviceNotAssigned``."""
    qube = keeper.current(qube)
    refuse_remote(qube)
    known = _known(qube, devclass, wanted)
    draft = Draft(keeper)
    draft.put(replace(qube, assignments=tuple(one for one in qube.assignments if one is not known)))
    draft.tell(DeviceUnassign(qube.name, devclass, wanted.backend, wanted.port, wanted.identity))
    draft.apply()
    await keeper.durable()


async def set_mode(keeper: Keeper, qube: Qube, devclass: str, wanted: Wanted, mode: str) -> None:
    """Carry a wish out in another way; ``BadValue`` where nothing like this is assigned."""
    qube = keeper.current(qube)
    refuse_remote(qube)
    known = find(qube, devclass, wanted)
    if known is None:
        raise BadValue(f"this device is not assigned to qube {qube.name!r}")
    if known.mode == mode:
        return
    changed = replace(known, mode=mode)
    told = (qube.name, devclass, wanted.backend, wanted.port, wanted.identity)
    draft = Draft(keeper)
    draft.tell(DevicePreAssign(*told, repr(dict(known.options))))
    draft.put(replace(qube, assignments=tuple(changed if one is known else one for one in qube.assignments)))
    draft.tell(DeviceAssignmentChanged(*told))
    draft.apply()
    await keeper.durable()


def refuse_remote(qube: Qube) -> None:
    if qube.klass is Klass.REMOTE:
        raise QubesError(f"qube {qube.name!r} is on another host and has no devices here")


def _known(qube: Qube, devclass: str, wanted: Wanted) -> Assignment:
    found = find(qube, devclass, wanted)
    if found is None:
        raise DeviceNotAssigned(f"this device is not assigned to qube {qube.name!r}")
    return found
