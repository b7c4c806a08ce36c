"""What the computed values of a qube may look at: the stored state and what only this run knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from qubesd.model.state import System


@dataclass(frozen=True, slots=True)
class Host:
    """The machine below, as the hypervisor tells it. Memory is in MiB."""

    memory: int
    cpus: int
    balances_memory: bool = False
    """Whether memory moves between running qubes (on Xen only)."""


@dataclass(frozen=True, slots=True)
class Running:
    """What a run knows of one qube.

    ``state`` is a word of ``spec/domains.md`` 6.1. ``xid`` and ``stubdom_xid`` are -1 without a domain,
    ``stubdom_xid`` ``None`` where the hypervisor does not say. ``start_time`` is epoch seconds, ``None`` when
    halted or not told.
    """

    state: str = "Halted"
    xid: int = -1
    start_time: float | None = None
    stubdom_xid: int | None = -1
    stubdom_uuid: str = ""


class View(Protocol):
    """The one argument of every computed default and every check; ``Core`` is one."""

    @property
    def system(self) -> System: ...

    @property
    def host(self) -> Host: ...

    def running(self, name: str) -> Running:
        """What this run knows of the qube (dom0 and a RemoteVM: always ``Running``)."""

    def kernels(self) -> frozenset[str]:
        """The versions of the kernels installed in the kernel pool."""

    def kernel_options(self, version: str, pci: bool) -> str | None:
        """What that kernel brings as its own default options, for qubes with PCI devices or without (the
        files ``default-kernelopts-pci.txt`` and ``-nopci.txt`` beside it); ``None`` where it brings none."""
