"""What the start and the stop of a netvm mean for the running qubes behind it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from qubesd.core.domain import interfaces
from qubesd.errors import QubesError
from qubesd.model.lineage import netvm_of
from qubesd.model.state import Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core

_log = logging.getLogger(__name__)


async def join(core: Core, netvm: str, running: Iterable[Qube]) -> None:
    """The netvm has started: join those of the running qubes that it is to serve. What fails is logged."""
    for qube in _behind(core, netvm, running):
        try:
            for interface in interfaces(core, qube):
                await core.hypervisor.attach(qube.uuid, interface)
        except QubesError as error:
            _log.warning("qube %r was not joined to its netvm %r: %s", qube.name, netvm, error)


async def cut(core: Core, netvm: str, running: Iterable[Qube]) -> None:
    """The netvm has stopped: part those of the running qubes that it served. What fails is logged."""
    for qube in _behind(core, netvm, running):
        try:
            for interface in interfaces(core, qube):
                await core.hypervisor.detach(qube.uuid, interface.mac)
        except QubesError as error:
            _log.warning("qube %r was not parted from its netvm %r: %s", qube.name, netvm, error)


def _behind(core: Core, netvm: str, running: Iterable[Qube]) -> list[Qube]:
    found = ((qube, netvm_of(core.system, qube)) for qube in running)
    return [qube for qube, served_by in found if served_by is not None and served_by.name == netvm]
