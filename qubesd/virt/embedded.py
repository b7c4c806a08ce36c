"""libvirt's test driver, in our own process: a whole hypervisor without a machine below it.

It keeps domains and their states and tells of them as every libvirt does. There is no guest, and the test
driver has no statistics, no hot-plug and no start in pause: what is made up here in their place is named in
``synthetic``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import libvirt

from qubesd.errors import NotSupported, QubeError, QubesError
from qubesd.model.state import DOM0_UUID
from qubesd.model.view import Host
from qubesd.virt.connection import Connection, find, state_of
from qubesd.virt.domain_devices import plugged
from qubesd.virt.domain_xml import console_path, domain_xml
from qubesd.virt.hypervisor import (
    Disk,
    Domain,
    DomainChange,
    DomainSpec,
    DomainState,
    Figures,
    Interface,
    PciDevice,
    Plugged,
)
from qubesd.virt.node_devices import pci_devices

_DOMAIN_TYPE = "test"


class Embedded:
    """The ``test`` driver: a ``Hypervisor`` on ``test:///default``, or on the private copy of a file.

    A start is "create, then pause"; a guest's agent answers at once; what is plugged in is kept in lists;
    processor time is the time since the start. libvirt keeps no start time here, so there is none.
    """

    synthetic = frozenset({"agent", "hot-plug", "start-paused", "statistics"})

    def __init__(self, uri: str, connect: Callable[[str], Any] = libvirt.open) -> None:
        self._connection = Connection(uri, connect)
        self._host = Host(memory=0, cpus=0)
        self._started: dict[str, int] = {}
        self._interfaces: dict[str, dict[str, Interface]] = {}
        self._disks: dict[str, dict[str, Disk]] = {}
        self._pci: dict[str, set[str]] = {}
        self._led_in: dict[str, set[tuple[str, str]]] = {}

    async def open(self, changed: Callable[[DomainChange], None], reconnected: Callable[[], None]) -> None:
        await self._connection.open(changed, reconnected)
        _, memory, cpus, *_ = await self._connection.ask(lambda libvirtd: libvirtd.getInfo())
        self._host = Host(memory=memory, cpus=cpus)

    async def close(self) -> None:
        await self._connection.close()

    def host(self) -> Host:
        return self._host

    async def domains(self) -> dict[str, Domain]:
        return await self._connection.ask(_domains)

    async def create(self, spec: DomainSpec) -> Domain:
        document = domain_xml(spec, _DOMAIN_TYPE)
        xid = await self._connection.ask(lambda libvirtd: _create_paused(libvirtd, document))
        self._started[spec.uuid] = time.monotonic_ns()
        self._interfaces[spec.uuid] = {one.mac: one for one in spec.interfaces}
        self._disks[spec.uuid] = {one.target: one for one in spec.disks}
        self._pci[spec.uuid] = set(spec.pci)
        return Domain(DomainState.PAUSED, xid)

    async def unpause(self, uuid: str) -> None:
        await self._connection.ask_domain(uuid, lambda domain: domain.resume())

    async def pause(self, uuid: str) -> None:
        await self._connection.ask_domain(uuid, lambda domain: domain.suspend())

    async def suspend(self, uuid: str) -> None:
        raise NotSupported("the embedded hypervisor has no guest that could sleep")

    async def wake(self, uuid: str) -> None:
        raise NotSupported("the embedded hypervisor has no guest that could sleep")

    async def shutdown(self, uuid: str) -> DomainState:
        return await self._connection.ask_domain(uuid, _shut_down)

    async def destroy(self, uuid: str) -> None:
        await self._connection.ask(lambda libvirtd: _destroy(libvirtd, uuid))

    async def forget(self, uuid: str) -> None:
        await self._connection.ask(lambda libvirtd: _undefine(libvirtd, uuid))
        self._started.pop(uuid, None)
        self._interfaces.pop(uuid, None)
        self._disks.pop(uuid, None)
        self._pci.pop(uuid, None)
        self._led_in.pop(uuid, None)

    async def answers(self, uuid: str) -> None:
        """There is no guest: its agent is taken to answer."""

    async def console(self, uuid: str) -> str:
        """There is no guest: its console leads nowhere, unless the description of the domain says where."""
        await self._check_runs(uuid)
        document = await self._connection.ask_domain(uuid, lambda domain: domain.XMLDesc())
        path = console_path(document)
        if path is None:
            raise NotSupported("the embedded hypervisor has no guest and so no console")
        return path

    async def attach(self, uuid: str, interface: Interface) -> None:
        plugged = await self._plugged(uuid)
        if interface.mac in plugged:
            raise QubesError(f"the domain has an interface {interface.mac} already")
        plugged[interface.mac] = interface

    async def detach(self, uuid: str, mac: str) -> None:
        (await self._plugged(uuid)).pop(mac, None)

    async def plugged(self, uuid: str) -> Plugged:
        """Of a domain that somebody else made: what it was made with, from its description."""
        await self._check_runs(uuid)
        if uuid not in self._disks:
            found = plugged(await self._connection.ask_domain(uuid, lambda domain: domain.XMLDesc()))
            self._disks[uuid] = {disk.target: disk for disk in found.disks}
            self._pci[uuid] = set(found.pci)
        return Plugged(tuple(self._disks[uuid].values()), tuple(sorted(self._pci[uuid])))

    async def attach_disk(self, uuid: str, disk: Disk) -> None:
        await self._check_runs(uuid)
        disks = self._disks.setdefault(uuid, {})
        if disk.target in disks:
            raise QubesError(f"the domain has a device {disk.target} already")
        disks[disk.target] = disk

    async def detach_disk(self, uuid: str, target: str) -> None:
        self._disks.get(uuid, {}).pop(target, None)

    async def attach_pci(self, uuid: str, address: str) -> None:
        await self._check_runs(uuid)
        self._pci.setdefault(uuid, set()).add(address)

    async def detach_pci(self, uuid: str, address: str) -> None:
        self._pci.get(uuid, set()).discard(address)

    async def lead_in(self, uuid: str, backend: str, device: str) -> None:
        await self._check_runs(uuid)
        self._led_in.setdefault(uuid, set()).add((backend, device))

    async def lead_out(self, uuid: str, backend: str, device: str) -> None:
        self._led_in.get(uuid, set()).discard((backend, device))

    async def pci_devices(self) -> list[PciDevice]:
        return await self._connection.ask(
            lambda libvirtd: pci_devices(device.XMLDesc() for device in libvirtd.listAllDevices())
        )

    async def _plugged(self, uuid: str) -> dict[str, Interface]:
        await self._check_runs(uuid)
        return self._interfaces.setdefault(uuid, {})

    async def _check_runs(self, uuid: str) -> None:
        if await self._connection.ask_domain(uuid, state_of) is DomainState.OFF:
            raise QubeError("the domain does not run, nothing can be plugged into it")

    async def figures(self, uuid: str) -> Figures:
        if uuid == DOM0_UUID:
            return self._host_figures()
        usage = await self._connection.ask(lambda libvirtd: _usage(find(libvirtd, uuid)))
        return Figures() if usage is None else self._figures(uuid, usage)

    async def free_memory(self) -> int:
        taken = sum(memory for _, memory, _ in (await self._connection.ask(_usages)).values())
        return max(0, self._host.memory * 1024 - taken) * 1024

    async def all_figures(self) -> dict[str, Figures]:
        usages = await self._connection.ask(_usages)
        found = {uuid: self._figures(uuid, usage) for uuid, usage in usages.items()}
        return {DOM0_UUID: self._host_figures(), **found}

    def _host_figures(self) -> Figures:
        memory = self._host.memory * 1024
        return Figures(memory=memory, memory_limit=memory, vcpus=self._host.cpus)

    def _figures(self, uuid: str, usage: tuple[int, int, int]) -> Figures:
        limit, memory, vcpus = usage
        since = self._started.setdefault(uuid, time.monotonic_ns())
        return Figures(memory, limit, time.monotonic_ns() - since, vcpus)


def _domains(libvirtd: Any) -> dict[str, Domain]:
    found: dict[str, Domain] = {}
    for domain in libvirtd.listAllDomains():
        uuid = domain.UUIDString()
        try:
            found[uuid] = Domain(state_of(domain), domain.ID())
        except libvirt.libvirtError:
            if find(libvirtd, uuid) is not None:  # else it went while it was listed
                raise
    return found


def _create_paused(libvirtd: Any, document: str) -> int:
    """The test driver has no start in pause, so the domain runs for a moment; nothing is in it that could."""
    domain = libvirtd.defineXML(document)
    try:
        domain.create()
    except libvirt.libvirtError:
        if not domain.isActive():  # else it ran before
            domain.undefine()
        raise
    try:
        domain.suspend()
    except libvirt.libvirtError:
        _destroy(libvirtd, domain.UUIDString())
        domain.undefine()
        raise
    return int(libvirtd.lookupByUUID(domain.UUID()).ID())


def _shut_down(domain: Any) -> DomainState:
    """The test driver shuts down at once."""
    domain.shutdown()
    return state_of(domain)


def _destroy(libvirtd: Any, uuid: str) -> None:
    domain = find(libvirtd, uuid)
    if domain is None or not domain.isActive():
        return
    try:
        domain.destroy()
    except libvirt.libvirtError:
        if domain.isActive():  # else somebody else was faster
            raise


def _undefine(libvirtd: Any, uuid: str) -> None:
    domain = find(libvirtd, uuid)
    if domain is not None:
        domain.undefine()


def _usages(libvirtd: Any) -> dict[str, tuple[int, int, int]]:
    usages = ((domain.UUIDString(), _usage(domain)) for domain in libvirtd.listAllDomains())
    return {uuid: usage for uuid, usage in usages if usage is not None}


def _usage(domain: Any | None) -> tuple[int, int, int] | None:
    """Limit and current memory in KiB and the processors; ``None`` where the domain is off or not there."""
    if domain is None or not domain.isActive():
        return None
    _, limit, memory, vcpus, _ = domain.info()
    return limit, memory, vcpus
