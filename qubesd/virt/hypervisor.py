"""What the core needs of a hypervisor. A driver is one implementation; libvirt stays behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from qubesd.model.view import Host


class DomainState(Enum):
    """The states of a domain as a hypervisor tells them."""

    OFF = "off"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device of a domain: ``path`` on the host, ``target`` such as ``xvda``.

    ``script`` is the hotplug script that makes a device of the path; ``None`` for the usual one. ``backend``
    is the qube in which the path is; ``None`` for dom0.
    """

    path: str
    target: str
    rw: bool
    script: str | None = None
    backend: str | None = None
    cdrom: bool = False


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface: MAC and IPv4 address, and the name of the qube that gives the network."""

    mac: str
    ip: str
    backend: str


@dataclass(frozen=True, slots=True)
class PciDevice:
    """A PCI device of the host. ``port`` is the way to it from its root bus, ``address`` is
    ``SSSS:BB:DD.F``, ``interface`` its code of seven characters; names are empty where they are not known."""

    port: str
    address: str
    vendor_id: str = "0x0000"
    product_id: str = "0x0000"
    vendor: str = ""
    product: str = ""
    interface: str = "p******"


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """Everything that a driver needs to make a domain, as typed values. Memory is in MiB.

    ``kernel`` is the directory of the kernel's files, ``None`` for the domain's own boot loader.
    """

    name: str
    uuid: str
    virt_mode: str
    memory: int
    maxmem: int
    vcpus: int
    kernel: str | None = None
    kernelopts: str = ""
    debug: bool = False
    disks: tuple[Disk, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    pci: tuple[str, ...] = ()
    """Addresses ``SSSS:BB:DD.F`` of devices of the host that the domain gets."""


@dataclass(frozen=True, slots=True)
class Plugged:
    """What a running domain has now: its disks, its qube's own volumes among them, and the addresses of the
    host's PCI devices."""

    disks: tuple[Disk, ...] = ()
    pci: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain as its hypervisor shows it. ``xid`` is -1 where it is off.

    ``start_time`` is epoch seconds, ``None`` where it is off or the hypervisor keeps no such time.
    ``stubdom_xid`` is -1 where there is no stub domain, ``None`` where the hypervisor does not say.
    """

    state: DomainState
    xid: int = -1
    start_time: float | None = None
    stubdom_xid: int | None = None


@dataclass(frozen=True, slots=True)
class DomainChange:
    """A hypervisor's own news of a domain."""

    uuid: str
    domain: Domain


@dataclass(frozen=True, slots=True)
class Figures:
    """What a domain uses now: memory and its limit in KiB, processor time in nanoseconds, and processors."""

    memory: int = 0
    memory_limit: int = 0
    cpu_time: int = 0
    vcpus: int = 0


class Hypervisor(Protocol):
    """The verbs. Each may take long and never blocks the loop; each raises ``HypervisorLost`` where the
    hypervisor does not answer, ``NotSupported`` where it has no such operation, ``QubesError`` otherwise.

    What a verb brought about is told as a ``DomainChange`` like all other news, in the order of happening.
    """

    @property
    def synthetic(self) -> frozenset[str]:
        """What this driver makes up because its hypervisor has nothing, by name, such as ``statistics``."""

    async def open(self, changed: Callable[[DomainChange], None], reconnected: Callable[[], None]) -> None:
        """Connect; from now on ``changed`` is called on the loop with every change of any domain.

        A lost connection is taken up again by itself; then ``reconnected`` is called, and what happened in
        between is to be had from ``domains``.
        """

    async def close(self) -> None:
        """Let go; nothing is told after that. Domains go on."""

    def host(self) -> Host: ...

    async def domains(self) -> dict[str, Domain]:
        """All domains by uuid, also those that are nothing of ours."""

    async def create(self, spec: DomainSpec) -> Domain:
        """Define the domain and start it paused. A failure leaves no domain."""

    async def unpause(self, uuid: str) -> None: ...

    async def pause(self, uuid: str) -> None: ...

    async def suspend(self, uuid: str) -> None:
        """Put the guest to sleep; ``NotSupported`` where it cannot be."""

    async def wake(self, uuid: str) -> None: ...

    async def shutdown(self, uuid: str) -> DomainState:
        """Ask the guest to stop; returns the state that it is in once the request was delivered."""

    async def destroy(self, uuid: str) -> None:
        """Take the domain down at once; nothing where it is off."""

    async def forget(self, uuid: str) -> None:
        """Remove the definition of a domain that is off; nothing where there is none."""

    async def answers(self, uuid: str) -> None:
        """Wait, without a limit of its own, until the agent in the guest takes calls."""

    async def console(self, uuid: str) -> str:
        """The terminal of a running domain's console; ``NotSupported`` where it has none."""

    async def attach(self, uuid: str, interface: Interface) -> None:
        """Plug a network interface into a running domain."""

    async def detach(self, uuid: str, mac: str) -> None:
        """Unplug it; nothing where the domain has no such interface."""

    async def plugged(self, uuid: str) -> Plugged:
        """What a running domain has, whoever plugged it in. A disk's ``script`` is not told."""

    async def attach_disk(self, uuid: str, disk: Disk) -> None:
        """Plug a block device into a running domain."""

    async def detach_disk(self, uuid: str, target: str) -> None:
        """Unplug it; nothing where the domain has no such device."""

    async def attach_pci(self, uuid: str, address: str) -> None:
        """Plug a device of the host into a running domain."""

    async def detach_pci(self, uuid: str, address: str) -> None:
        """Unplug it; nothing where the domain has no such device."""

    async def lead_in(self, uuid: str, backend: str, device: str) -> None:
        """Have a device of another qube, a USB device or the microphone, come out in this one.

        Args:
            backend: the uuid of the qube that has the device.
            device: its class and port, ``CLASS:PORT``.
        """

    async def lead_out(self, uuid: str, backend: str, device: str) -> None:
        """End that; nothing where it is not so."""

    async def pci_devices(self) -> list[PciDevice]:
        """The host's PCI devices, by port."""

    async def free_memory(self) -> int:
        """Bytes of the host's memory that no domain has."""

    async def figures(self, uuid: str) -> Figures:
        """What the domain uses; all zero where it is off. dom0's uuid means the host's own share."""

    async def all_figures(self) -> dict[str, Figures]:
        """The figures of dom0 and of all domains that are not off, by uuid, asked for at once."""
