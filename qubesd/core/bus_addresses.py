"""PCI devices that Qubes 4.2 and earlier assigned by address, by the port that they have on this host now
(``spec/qubes-xml.md`` 1.4).

An address changes when a bridge comes or goes, the way from the root bus does not; but only the host can tell
which way leads to an address, so the reader of the store cannot.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from qubesd.core.keeper import Keeper
from qubesd.errors import QubesError
from qubesd.model.state import DOM0, Assignment, Qube
from qubesd.store.keeping import follow
from qubesd.store.older import port_of_address

_log = logging.getLogger(__name__)


async def assign_by_port(keeper: Keeper) -> None:
    """Put the ports in the place of the addresses; an address at which there is no device now stays.

    The file has them with the next change, as it has everything else of earlier versions.
    """
    if not any(_may_be_address(one) for qube in keeper.system.qubes.values() for one in qube.assignments):
        return
    try:
        devices = await keeper.hypervisor.pci_devices()
    except QubesError as error:
        _log.warning("PCI devices are not known, and those assigned by address are not found: %s", error)
        return
    ports = {port_of_address(device.address): device.port for device in devices}
    # An address on the root bus is the port as well.
    ports = {address: port for address, port in ports.items() if address not in ports.values()}
    system, touched = keeper.system, []
    for qube in keeper.system.qubes.values():
        moved = _by_port(qube, ports)
        if moved is not qube:
            system = system.with_qube(moved)
            touched.append(qube.name)
    if touched:
        # As with all that is brought up to date when it is read, going back does not lead behind it.
        keeper.commit.written = system
        keeper.change(system, touched)


def _by_port(qube: Qube, ports: Mapping[str, str]) -> Qube:
    for one in qube.assignments:
        port = ports.get(one.port) if _may_be_address(one) else None
        moved = None if port is None else replace(one, port=port)
        if moved is not None and all(_device(other) != _device(moved) for other in qube.assignments):
            _log.info("qube %r: PCI device %s is assigned as %s from now on", qube.name, one.port, port)
            assignments = tuple(moved if other is one else other for other in qube.assignments)
            qube = replace(qube, assignments=assignments, kept=follow(qube.kept, one, moved))
    return qube


def _may_be_address(assignment: Assignment) -> bool:
    return assignment.devclass == "pci" and assignment.backend == DOM0 and "-" not in assignment.port


def _device(assignment: Assignment) -> tuple[str, ...]:
    return assignment.devclass, assignment.backend, assignment.port, assignment.identity
