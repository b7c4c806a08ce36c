"""The core: what is kept, and the parts that act on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from qubesd.config import Config
from qubesd.core.backups import Backups
from qubesd.core.bus_addresses import assign_by_port
from qubesd.core.creation import Creation
from qubesd.core.databases import Databases
from qubesd.core.device_lists import DeviceLists, Watch, unwatched
from qubesd.core.exposure import DATABASES
from qubesd.core.extending import Extensions
from qubesd.core.handing_out import HandingOut
from qubesd.core.host_services import HostServices
from qubesd.core.keeper import Keeper
from qubesd.core.picture import Picture
from qubesd.core.power import Power
from qubesd.core.preloading import Preloading
from qubesd.core.requests import Requests
from qubesd.core.sleep import Sleep
from qubesd.core.statistics import Statistics
from qubesd.core.storage import Storage
from qubesd.core.turns import Turns
from qubesd.core.updates import Updates
from qubesd.core.volumes import Volumes
from qubesd.extension import Extension
from qubesd.model.state import Qube, System
from qubesd.store.commit import GroupCommit
from qubesd.virt.hypervisor import Hypervisor

T = TypeVar("T")

NO_EXTENSIONS: Mapping[str, Extension] = MappingProxyType({})


class Core(Keeper):
    """One system and the parts that carry it out: all that the Admin API's handlers work with.

    ``watch`` tells when the devices that a running qube announces change; without it, nothing does.
    ``extensions`` are by name.
    """

    def __init__(
        self,
        config: Config,
        system: System,
        commit: GroupCommit,
        hypervisor: Hypervisor,
        watch: Watch = unwatched,
        extensions: Mapping[str, Extension] = NO_EXTENSIONS,
    ) -> None:
        super().__init__(config, system, commit, hypervisor)
        self.extensions = Extensions(self)
        self.extensions.use(extensions)
        self.storage = Storage(self)
        self.databases = Databases(self, self.extensions, config.run_dir / DATABASES)
        self.power = Power(self, self.storage, self.databases)
        self.devices = self.power.devices
        self.handing_out = HandingOut(self, self.power.lives, self.devices)
        self.device_lists = DeviceLists(self, self.power.lives, self.devices, self.handing_out, watch)
        self.firewalls = self.power.firewalls
        self.volumes = Volumes(self, self.storage, self.power.lives, self.power.guests)
        self.backups = Backups(self, self.storage, self.power.guests)
        self.statistics = Statistics(self)
        self.creation = Creation(self, self.storage, self.firewalls)
        self.preloading = Preloading(self, self.creation, self.power, self.storage, self.firewalls)
        self.sleep = Sleep(self, self.power, self.preloading)
        self.host_services = HostServices(self, config.run_dir / "qubes-service")
        turns = Turns(self)
        self.requests = Requests(self, self.databases, turns)
        self.updates = Updates(self, self.volumes, turns)
        self._pictures: dict[Callable[..., Any], Picture[Any]] = {}

    async def open(self) -> None:
        """Open the pools, connect to the hypervisor and learn what runs.

        Raises:
            HypervisorLost: it does not answer.
        """
        await self.storage.open()
        await self.power.lives.open()
        await assign_by_port(self)
        await self.devices.open()
        await self.device_lists.open()
        await self.storage.settle(self.power.lives.active())
        await self.volumes.open()
        await self.firewalls.open()
        self.databases.open(self.power.lives.active())
        await self.power.downstream.open(self.power.lives.active())
        self.host_services.open()
        await self.backups.open()
        await self.power.lives.clean_up_left_overs()
        self.preloading.open()

    async def close(self) -> None:
        """Let what is under way end, write what is not written yet, and let go of the hypervisor."""
        self.preloading.close()
        self.device_lists.close()
        await self.statistics.close()
        await self.firewalls.close()
        await self.power.lives.close()
        await self.power.downstream.close()
        await self.databases.close()
        await self.storage.close()
        await super().close()

    def picture(self, draw: Callable[[Keeper, Qube], T]) -> Picture[T]:
        """The picture of all qubes that ``draw`` makes of each; always the same one for the same function."""
        found = self._pictures.get(draw)
        if found is None:
            found = self._pictures[draw] = Picture(self, draw)
        return found
