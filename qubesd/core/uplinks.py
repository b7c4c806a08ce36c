"""What the start and the stop of a netvm mean for the running qubes behind it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from qubesd.core.domain import interfaces
from qubesd.core.keeper import Keeper
from qubesd.errors import QubesError
from qubesd.model.lineage import netvm_of
from qubesd.model.state import Qube

_log = logging.getLogger(__name__)


async def join(keeper: Keeper, netvm: str, running: Iterable[Qube]) -> None:
    """The netvm has started: join those of the running qubes that it is to serve. What fails is logged."""
    for qube in _behind(keeper, netvm, running):
        try:
            for interface in interfaces(keeper, qube):
                await keeper.hypervisor.attach(qube.uuid, interface)
        except QubesError as error:
            _log.warning("qube %r was not joined to its netvm %r: %s", qube.name, netvm, error)


async def cut(keeper: Keeper, netvm: str, running: Iterable[Qube]) -> None:
    """The netvm has stopped: part those of the running qubes that it served. What fails is logged."""
    for qube in _behind(keeper, netvm, running):
        try:
            for interface in interfaces(keeper, qube):
                await keeper.hypervisor.detach(qube.uuid, interface.mac)
        except QubesError as error:
            _log.warning("qube %r was not parted from its netvm %r: %s", qube.name, netvm, error)


def _behind(keeper: Keeper, netvm: str, running: Iterable[Qube]) -> list[Qube]:
    found = ((qube, netvm_of(keeper.system, qube)) for qube in running)
    return [qube for qube, served_by in found if served_by is not None and served_by.name == netvm]
