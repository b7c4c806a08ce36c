"""What is kept and what this run knows, and the one place where either changes.

State is a value. Whoever changes something makes a new ``System`` (most simply in a ``Draft``), hands it to
``Keeper.change`` and answers after ``Keeper.durable``. Where the write fails the keeper goes back to the
system that is on the disk, says so with ``SystemRestored``, and every call that waited for it fails; nothing
else undoes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from qubesd.bus import Bus
from qubesd.config import Config
from qubesd.core.budgets import Budgets
from qubesd.core.index import Index, references, vids
from qubesd.errors import NoSuchQube
from qubesd.events import Event, QubeChanged, SystemChanged, SystemRestored
from qubesd.model.state import Klass, Qube, System
from qubesd.model.view import Host, Running, View
from qubesd.store.commit import GroupCommit
from qubesd.virt.hypervisor import Hypervisor

Steps = Any
"""A ``Draft``, which knows its keeper, and which therefore is not named here."""

ALWAYS_ON = Running(state="Running")
"""dom0, and a RemoteVM, of whose real state nothing is known here."""

HALTED = Running()


def unjudged(view: View, event: Event) -> None:
    """Refuse nothing."""


def unanswered(draft: Steps, event: Event) -> None:
    """Add nothing."""


def unadded(qube: Qube) -> Mapping[str, Path]:
    """Add nothing."""
    return {}


class Keeper:
    """One system, on disk and running; satisfies ``View``, so computed values read it directly."""

    def __init__(self, config: Config, system: System, commit: GroupCommit, hypervisor: Hypervisor) -> None:
        self.config = config
        self.system = system
        self.hypervisor = hypervisor
        self.bus = Bus()
        self.referrers = Index(self.bus, lambda: self.system, references)
        self.owners = Index(self.bus, lambda: self.system, vids)
        self.budgets = Budgets(self.bus, self)
        self.judge: Callable[[View, Event], None] = unjudged
        """Raises a ``QubesError`` to refuse what the event tells; the view is of the system with it."""
        self.react: Callable[[Steps, Event], None] = unanswered
        """Adds its own steps to a draft that tells of the event; raises nothing."""
        self.added: Callable[[Qube], Mapping[str, Path]] = unadded
        """The files that are to be in a backup of the qube besides its own, by their names there. Raises a
        ``QubesError`` where that cannot be said."""
        self.commit = commit
        self._running: dict[str, Running] = {}

    @property
    def host(self) -> Host:
        """The machine below, as the opened hypervisor tells it."""
        return self.hypervisor.host()

    def current(self, qube: Qube) -> Qube:
        """The present record of a qube that was looked up earlier; ``NoSuchQube`` where it has gone since."""
        found = self.system.qubes.get(qube.name)
        if found is None or found.uuid != qube.uuid:
            raise NoSuchQube(f"no qube {qube.name!r}")
        return found

    def running(self, name: str) -> Running:
        """What this run knows of the qube of that name, there or not."""
        qube = self.system.qubes.get(name)
        if qube is not None and qube.klass in (Klass.ADMIN, Klass.REMOTE):
            return ALWAYS_ON
        return self._running.get(name, HALTED)

    def users_of(self, name: str) -> list[str]:
        """The qubes that name this one in a property of their own or as the backend of a device, in order."""
        return self.referrers.of(name)

    def set_running(self, name: str, running: Running) -> None:
        """Note a new run state (for ``power`` only); a halted qube is one that nothing is known of."""
        if running == self._running.get(name, HALTED):
            return
        if running == HALTED:
            del self._running[name]
        else:
            self._running[name] = running
        self.bus.publish(QubeChanged(name))

    def kernels(self) -> frozenset[str]:
        """The installed kernels: the directories that hold a ``vmlinuz``."""
        return frozenset(found.parent.name for found in self.config.kernels_dir.glob("*/vmlinuz"))

    def kernel_options(self, version: str, pci: bool) -> str | None:
        """The default options that this kernel brings; ``None`` where it brings none or cannot be read."""
        name = "default-kernelopts-pci.txt" if pci else "default-kernelopts-nopci.txt"
        try:
            return (self.config.kernels_dir / version / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None

    def change(self, system: System, qubes: Iterable[str] = (), everything: bool = False) -> None:
        """Put ``system`` in the place of the present one.

        Args:
            qubes: the names of the qubes that were added, removed or changed.
            everything: whether global properties, labels or pools changed as well.
        """
        self.system = system
        if everything:
            self.bus.publish(SystemChanged())
        for name in qubes:
            self.bus.publish(QubeChanged(name))

    async def durable(self) -> None:
        """Return when the present system, or a later one, is on the disk.

        Raises:
            StoreError: it could not be written; the core is again what the disk holds.
        """
        await self.commit.durable(lambda: self.system, self._restore)

    def _restore(self) -> None:
        """Go back to the system that was written last, before any call learns that its change is gone."""
        self.system = self.commit.written
        self.bus.publish(SystemRestored())

    async def close(self) -> None:
        """Write what is not written yet."""
        try:
            await self.durable()
        finally:
            await self.commit.close()
