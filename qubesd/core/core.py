"""The core: what is kept, what this run knows, and the one place where either changes.

State is a value. Whoever changes something makes a new ``System`` (most simply in a ``Draft``), hands it to
``Core.change`` and answers after ``Core.durable``. Where the write fails the core goes back to the system
that is on the disk, says so with ``SystemRestored``, and every call that waited for it fails; nothing else
undoes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from qubesd.config import Config
from qubesd.core.picture import Picture
from qubesd.errors import StoreError
from qubesd.events import Bus, QubeChanged, SystemChanged, SystemRestored
from qubesd.model.state import Klass, Qube, System
from qubesd.model.view import Host, Running
from qubesd.store.commit import GroupCommit
from qubesd.virt.hypervisor import Hypervisor

if TYPE_CHECKING:
    from qubesd.core.power import Power

ALWAYS_ON = Running(state="Running")
"""dom0, and a RemoteVM, of whose real state nothing is known here."""

HALTED = Running()

T = TypeVar("T")


class Core:
    """One system and the parts that carry it out; satisfies ``View``, so computed values read it directly."""

    power: Power
    """The life cycle of the qubes; given by ``open_core``, which wires the parts."""

    def __init__(
        self, config: Config, system: System, commit: GroupCommit, hypervisor: Hypervisor, host: Host
    ) -> None:
        self.config = config
        self.system = system
        self.hypervisor = hypervisor
        self.host = host
        self.bus = Bus()
        self._commit = commit
        self._on_disk = system
        self._running: dict[str, Running] = {}
        self._pictures: dict[Callable[..., Any], Picture[Any]] = {}

    def running(self, name: str) -> Running:
        """What this run knows of the qube of that name, there or not."""
        qube = self.system.qubes.get(name)
        if qube is not None and qube.klass in (Klass.ADMIN, Klass.REMOTE):
            return ALWAYS_ON
        return self._running.get(name, HALTED)

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
        try:
            await self._commit.durable(lambda: self.system)
        except StoreError:
            self._restore()
            raise

    def _restore(self) -> None:
        """Go back to the system that was written last; the first of the calls that waited does it for all."""
        if self.system is not self._commit.written:
            self.system = self._commit.written
            self.bus.publish(SystemRestored())

    def picture(self, draw: Callable[[Core, Qube], T]) -> Picture[T]:
        """The picture of all qubes that ``draw`` makes of each; always the same one for the same function."""
        found = self._pictures.get(draw)
        if found is None:
            found = self._pictures[draw] = Picture(self, draw)
        return found
