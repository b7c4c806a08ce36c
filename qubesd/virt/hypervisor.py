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
    """A block device of a domain: ``path`` on the host, ``target`` such as ``xvda``."""

    path: str
    target: str
    rw: bool


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface: MAC and IPv4 address, and the name of the qube that gives the network."""

    mac: str
    ip: str
    backend: str


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


@dataclass(frozen=True, slots=True)
class DomainChange:
    """A hypervisor's own news of a domain."""

    uuid: str
    state: DomainState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a domain uses now: memory and its limit in KiB, processor time in nanoseconds."""

    memory: int
    memory_limit: int
    cpu_time: int


class Hypervisor(Protocol):
    """The verbs. Each may take long and never blocks the loop; each raises ``HypervisorLost`` where the
    hypervisor does not answer, ``NotSupported`` where the driver has no such operation, ``QubesError`` otherwise."""

    synthetic: frozenset[str]
    """Which figures or operations this driver makes up, by name, such as ``statistics``."""

    async def open(self, changed: Callable[[DomainChange], None]) -> None:
        """Connect; ``changed`` is called on the loop with every change of any domain from now on."""

    async def close(self) -> None: ...

    def host(self) -> Host: ...

    async def domains(self) -> dict[str, DomainState]:
        """All domains by uuid (for reconciliation at start and after a reconnect)."""

    async def create(self, spec: DomainSpec) -> int:
        """Define the domain and start it paused; returns its id (xid)."""

    async def unpause(self, uuid: str) -> None: ...
    async def pause(self, uuid: str) -> None: ...
    async def suspend(self, uuid: str) -> None: ...
    async def wake(self, uuid: str) -> None: ...

    async def shutdown(self, uuid: str) -> None:
        """Ask the guest to stop; returns when the request was delivered."""

    async def destroy(self, uuid: str) -> None: ...

    async def forget(self, uuid: str) -> None:
        """Remove the definition of a domain that is off; nothing where there is none."""

    async def figures(self, uuid: str) -> Figures: ...
