"""What running qubes expose, followed while they run, and what is told and done when it changes
(``spec/devices.md`` 8).

A qube writes its list itself and may write it all the time. So its changes are taken together, and the longer
it goes on the less often its list is looked at. Looks at one qube's list come one after the other. A look
holds no lock of any life itself; what follows from it takes that of the one qube that gets or loses a device.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from qubesd.core import held
from qubesd.core.device_events import DeviceAdded, DeviceListChange, DeviceRemoved, DomainQdbChange
from qubesd.core.devices import Devices
from qubesd.core.exposure import ANNOUNCED
from qubesd.core.handing_out import HandingOut
from qubesd.core.keeper import Keeper
from qubesd.core.lives import Lives
from qubesd.core.power_events import DomainAppeared, DomainStart, DomainStopped
from qubesd.events import SystemRestored
from qubesd.model.devices import Device
from qubesd.model.state import Qube

_PAUSE = 0.05
"""Seconds from a change to the look at it, so that what is written together is seen together."""
_LONGEST = 5.0
"""The same for a list that does not rest; without a change for twice as long it has rested."""

Watch = Callable[[str, Callable[[], None]], Callable[[], None]]
"""Calls a function, once, when what the running qube of this name announces changes next, or at any time
where it cannot tell. Returns how to have it not called any more."""


def unwatched(name: str, changed: Callable[[], None]) -> Callable[[], None]:
    """Tell of nothing."""
    return _nothing


def _nothing() -> None:
    """There is nothing to end."""


@dataclass(slots=True, eq=False)
class _List:
    """What one run of a qube exposes as far as it was told, by class and port, and the watch on it."""

    qube: Qube
    known: dict[str, dict[str, Device]] = field(
        default_factory=lambda: {devclass: {} for devclass in ANNOUNCED}
    )
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pause: float = _PAUSE
    looked: float = 0.0
    unwatch: Callable[[], None] = _nothing
    timer: asyncio.TimerHandle | None = None


class DeviceLists:
    """The lists of one keeper's running qubes."""

    def __init__(
        self, keeper: Keeper, lives: Lives, devices: Devices, handing_out: HandingOut, watch: Watch
    ) -> None:
        self._keeper = keeper
        self._lives = lives
        self._devices = devices
        self._handing_out = handing_out
        self._watch = watch
        self._lists: dict[str, _List] = {}

    async def open(self) -> None:
        """Learn what the qubes that run already expose, which is no news and is not told, and follow them and
        every qube that starts."""
        bus = self._keeper.bus
        bus.subscribe(DomainStart, lambda event: self._began(event.subject))
        bus.subscribe(DomainAppeared, lambda event: self._began(event.subject))
        bus.subscribe(DomainStopped, lambda event: self._stopped(event.subject))
        bus.subscribe(SystemRestored, lambda _: self._drop_strays())
        for known in [self._follow(qube) for qube in self._lives.active()]:
            async with known.lock:
                if self._is_followed(known):
                    self._arm(known)
                    for devclass in ANNOUNCED:
                        known.known[devclass] = await self._now(known, devclass)

    def close(self) -> None:
        """Follow nothing any more."""
        for name in list(self._lists):
            self._leave(name)

    async def look(self, qube: Qube) -> None:
        """Look at what the qube exposes now; tell of what came and went, and carry out what was wished."""
        known = self._lists.get(qube.name)
        if known is not None:
            await self._look(known)

    def _began(self, name: str) -> None:
        qube = self._keeper.system.qubes.get(name)
        if qube is not None and name not in self._lists:
            self._lives.behind(self._first_look(self._follow(qube)))

    async def _first_look(self, known: _List) -> None:
        """Of a qube that has just started, which also gets what it is to have."""
        await self._look(known)
        if self._is_followed(known):
            await self._handing_out.supply(known.qube.name)

    def _follow(self, qube: Qube) -> _List:
        known = self._lists[qube.name] = _List(qube)
        return known

    def _leave(self, name: str) -> _List | None:
        known = self._lists.pop(name, None)
        if known is not None:
            known.unwatch()
            if known.timer is not None:
                known.timer.cancel()
        return known

    def _is_followed(self, known: _List) -> bool:
        """Whether that run of the qube goes on."""
        return self._lists.get(known.qube.name) is known

    def _arm(self, known: _List) -> None:
        known.unwatch()
        known.unwatch = self._watch(known.qube.name, partial(self._changed, known))

    def _changed(self, known: _List) -> None:
        loop = asyncio.get_running_loop()
        rested = loop.time() - known.looked > 2 * _LONGEST
        known.pause = _PAUSE if rested else min(2 * known.pause, _LONGEST)
        if known.timer is not None:
            known.timer.cancel()
        known.timer = loop.call_later(known.pause, lambda: self._lives.behind(self._look(known)))

    async def _look(self, known: _List) -> None:
        async with known.lock:
            if self._is_followed(known):
                # First: whatever changes from here on is told, and seen by the next look.
                self._arm(known)
                for devclass in ANNOUNCED:
                    await self._compare(known, devclass)
                known.looked = asyncio.get_running_loop().time()

    async def _compare(self, known: _List, devclass: str) -> None:
        """Bring what was told of one class up to date, in the order of ``spec/devices.md`` 8."""
        name = known.qube.name
        now = await self._now(known, devclass)
        before = known.known[devclass]
        lost = [
            holding
            for holding in self._devices.held.out_of(name)
            if holding.device.devclass == devclass
            and holding.device.identity != held.UNKNOWN  # of those it was not known that they were there
            and not _same(holding.device, now.get(holding.device.port))
        ]
        if not self._is_followed(known) or (now == before and not lost):
            return
        if now != before:
            self._keeper.bus.publish(DomainQdbChange(name, devclass))
            self._keeper.bus.publish(DeviceListChange(name, devclass))
        await asyncio.gather(*(self._devices.lose(holding) for holding in lost))
        if not self._is_followed(known):
            return  # the end of the run has told of the rest
        for port in [port for port, device in before.items() if not _same(device, now.get(port))]:
            del before[port]
            self._keeper.bus.publish(DeviceRemoved(name, devclass, name, port))
        new = [device for port, device in now.items() if port not in before]
        before.update(now)
        for device in new:
            self._keeper.bus.publish(DeviceAdded(name, devclass, name, device.port, device.identity))
        for device in new:
            if self._is_followed(known):
                await self._handing_out.came(device)

    async def _now(self, known: _List, devclass: str) -> dict[str, Device]:
        return {device.port: device for device in await self._devices.exposed(known.qube, devclass)}

    def _stopped(self, name: str) -> None:
        """What the qube exposed is gone."""
        known = self._leave(name)
        if known is None:
            return
        for devclass in ANNOUNCED:
            for port in known.known[devclass]:
                self._keeper.bus.publish(DeviceRemoved(name, devclass, name, port))

    def _drop_strays(self) -> None:
        """The system went back to one without some qubes."""
        for name, known in list(self._lists.items()):
            if self._keeper.system.by_uuid.get(known.qube.uuid) != name:
                self._leave(name)


def _same(device: Device, other: Device | None) -> bool:
    return other is not None and device.identity == other.identity
