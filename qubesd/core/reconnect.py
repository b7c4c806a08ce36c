"""Changing where running qubes get their network from: the interfaces move first, then the property."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from qubesd.core.core import Core
from qubesd.core.domain import interfaces
from qubesd.core.draft import Draft
from qubesd.errors import QubesError
from qubesd.model.lineage import follows_default_netvm
from qubesd.model.state import Qube
from qubesd.virt.hypervisor import Interface

_Wiring = dict[str, tuple[Interface, ...]]
"""The interfaces of qubes by their uuids."""


def wired_to(core: Core, owner: Qube | None, name: str) -> list[Qube]:
    """The running qubes whose network a change of this property moves, in list order."""
    if owner is None:
        moved = core.system.in_order() if name == "default_netvm" else []
        moved = [qube for qube in moved if follows_default_netvm(qube)]
    else:
        moved = [owner] if name == "netvm" else []
    return [qube for qube in moved if core.running(qube.name).state != "Halted"]


async def reconnect(core: Core, qubes: Sequence[Qube], make: Callable[[], Draft]) -> None:
    """Apply a draft, with the interfaces of these running qubes moved to where it says.

    Args:
        make: makes the draft of the state as it is; called once to see what to do and once to do it.

    Raises:
        QubesError: the draft or the hypervisor refused; the properties and the interfaces are as before.
    """
    async with AsyncExitStack() as held:
        for qube in qubes:
            await held.enter_async_context(core.power.lives.holding(qube))
        running = [qube for qube in qubes if core.running(qube.name).state != "Halted"]
        draft = make()
        before = {qube.uuid: interfaces(core, core.system.qubes[qube.name]) for qube in running}
        after = {qube.uuid: interfaces(draft, draft.system.qubes[qube.name]) for qube in running}
        await _rewire(core, before, after)
        try:
            make().apply()
        except QubesError:
            await _rewire(core, after, before)
            raise


async def _rewire(core: Core, before: _Wiring, after: _Wiring) -> None:
    """All of it, or on an error what can be had of the wiring before."""
    done: _Wiring = {}
    try:
        for uuid, wanted in after.items():
            done[uuid] = wanted
            await _swap(core, uuid, before[uuid], wanted)
    except QubesError:
        for uuid, wanted in done.items():
            await _swap(core, uuid, wanted, before[uuid])
        raise


async def _swap(core: Core, uuid: str, old: Sequence[Interface], new: Sequence[Interface]) -> None:
    for interface in old:
        await core.hypervisor.detach(uuid, interface.mac)
    for interface in new:
        await core.hypervisor.attach(uuid, interface)
