"""Disposables made ahead: started, paused, and handed out to whoever asks next (``spec/domains.md`` 6.5).

One that waits carries the tags of nobody. It is handed out only while it is what one made now would be; else
it goes, and the next in the queue is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from qubesd.core import waiting
from qubesd.core.creation import Creation
from qubesd.core.domain import needed_memory
from qubesd.core.draft import Draft
from qubesd.core.firewall import Firewalls
from qubesd.core.keeper import Keeper
from qubesd.core.power import Power
from qubesd.core.power_events import DomainShutdown, DomainUnpaused, PreloadStart, PreloadUsed
from qubesd.core.removal import could_go
from qubesd.core.storage import Storage
from qubesd.core.tags import Inherits, every_tag
from qubesd.errors import NoSuchQube, QubeNotStarted, QubesError
from qubesd.events import FeatureEvent, PropertyEvent
from qubesd.model import preload, references
from qubesd.model.devices import CLASSES
from qubesd.model.references import QUEUE, makes_disposables
from qubesd.model.state import DOM0, Qube, VolumeConfig
from qubesd.storage.pool import Pool

_log = logging.getLogger(__name__)

_DECIDING = frozenset(("default_dispvm", "template_for_dispvms"))


@dataclass(slots=True)
class _Filling:
    """A queue being filled; ``again`` is why once more after that, ``None`` for not."""

    again: str | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Preloading:
    """The queues of one keeper's templates, each filled by at most one task at a time."""

    def __init__(
        self, keeper: Keeper, creation: Creation, power: Power, storage: Storage, firewalls: Firewalls
    ) -> None:
        self._keeper = keeper
        self._firewalls = firewalls
        self._creation = creation
        self._power = power
        self._storage = storage
        self._timers: dict[str, asyncio.TimerHandle] = {}
        """By the template's name: the fill that is to come."""
        self._filling: dict[str, _Filling] = {}
        self._held: set[str] = set()
        """Templates that get no more, since they are being removed."""
        self._closing = False

    def open(self) -> None:
        """See to the queues that an earlier daemon left, and from now on to every change that matters."""
        bus = self._keeper.bus
        bus.subscribe(FeatureEvent, self._feature_changed)
        bus.subscribe(PropertyEvent, self._property_changed)
        bus.subscribe(DomainUnpaused, self._unpaused)
        bus.subscribe(DomainShutdown, self._stopped)
        self._review("the daemon started", later=True)

    def close(self) -> None:
        """Make no more; what waits stays."""
        self._closing = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def withdraw(self) -> None:
        """Have none wait, and make no more until ``go_on``; one that cannot be removed is in the log."""
        self.close()
        for name in list(self._keeper.system.qubes):
            await self._empty(name)

    def go_on(self) -> None:
        self._closing = False
        self._review("the host woke up", later=True)

    def fill(self, template: Qube) -> None:
        """Begin to make those that are missing.

        Raises:
            QubesError: no disposables can be made from this qube.
        """
        if not makes_disposables(template):
            raise QubesError(f"no disposables can be made from qube {template.name!r}")
        self._later(template, "asked for", 0.0)

    async def take(self, creator: Qube, template: Qube, inherits: Inherits = every_tag) -> Qube | None:
        """One that waited, now the creator's and running, durably; ``None`` where none can be had.

        Args:
            inherits: which of its template's tags it keeps.

        Raises:
            OverLimit: its owner may not have it; it goes on waiting.
        """
        for name in references.waiting(template):
            qube = self._ready(name)
            if qube is None:
                continue
            if not await self._is_current(template.name, qube):
                self._power.lives.behind(self._drop(qube))
                continue
            # From here to the claim nothing waits, so nobody else has it.
            if self._ready(name) is not qube:
                continue
            draft = Draft(self._keeper)
            waiting.hand_out(draft, name, self._keeper.current(creator), inherits)
            draft.apply()
            self._used(template.name)
            try:
                await self._power.unpause(qube)
                return await self._hand_over(template, name)
            except QubesError as error:
                _log.error("disposable %r was made ahead and cannot be used: %s", name, error)
                await self._drop(qube)
        return None

    @asynccontextmanager
    async def making_way(self, template: Qube) -> AsyncIterator[None]:
        """Inside, none waits, where nothing but those would keep the template from being removed."""
        if not could_go(self._keeper, template, references.waiting(template)):
            yield
            return
        self._held.add(template.name)
        try:
            await self._empty(template.name)
            yield
        finally:
            self._held.discard(template.name)
            self._review_one(template.name, "the template stays", later=True)

    async def _empty(self, name: str) -> None:
        """Have none of this template wait. Who is being started goes first: its guest may never answer."""
        await self._dismiss_all(name)
        if name in self._filling:
            await self._filling[name].ended.wait()
            await self._dismiss_all(name)

    async def _dismiss_all(self, name: str) -> None:
        template = self._keeper.system.qubes.get(name)
        for other in () if template is None else references.waiting(template):
            try:
                await self._dismiss(name, other)
            except QubesError as error:
                _log.error("disposable %r was made ahead and stays: %s", other, error)

    async def _hand_over(self, template: Qube, name: str) -> Qube:
        draft = Draft(self._keeper)
        waiting.become_ordinary(draft, name)
        draft.apply()
        made = self._keeper.system.qubes[name]
        await self._keeper.durable()
        self._keeper.bus.publish(PreloadUsed(template.name, name, preload.delay(template)))
        return made

    def _used(self, template: str) -> None:
        self._review_one(template, "one was used", later=True)

    def _ready(self, name: str) -> Qube | None:
        """The qube of that name, if it is in a queue and can be handed out."""
        if preload.template_of_waiting(self._keeper, name) is None:
            return None
        qube = self._keeper.system.qubes[name]
        return qube if preload.is_ready(self._keeper, qube) else None

    async def _is_current(self, template: str, qube: Qube) -> bool:
        """Whether one that is made now would be like this one."""
        now = self._keeper.system.qubes.get(template)
        if now is None:
            return False
        try:
            # Anything that somebody has changed of it since is reason enough: it must not come with it.
            fresh = self._creation.would_be_made(qube, now)
            if waiting.without_marks(fresh) != waiting.without_marks(qube):
                return False
            if any(self._power.devices.attached(qube, devclass) for devclass in CLASSES):
                return False
            if await self._firewalls.copied(qube) != await self._firewalls.copied(now):
                return False
            for volume in self._storage.volumes(qube):
                if await self._storage.read(_is_outdated, volume):
                    return False
                origin = now.volumes.get(volume.name)
                if origin is not None and volume.snap_on_start and await self._is_smaller(volume, origin):
                    return False
        except QubesError as error:
            _log.error("disposable %r was made ahead and cannot be looked at: %s", qube.name, error)
            return False
        return True

    async def _is_smaller(self, volume: VolumeConfig, origin: VolumeConfig) -> bool:
        return await self._storage.read(_size, volume) < await self._storage.read(_size, origin)

    def _feature_changed(self, event: FeatureEvent) -> None:
        if event.ahead:
            return
        if event.feature == QUEUE and event.subject not in self._filling:
            self._review_one(event.subject, "the queue is shorter", later=True)
        elif event.feature == preload.MAX and event.subject != DOM0:
            self._review_one(event.subject, f"feature {event.feature} changed")
        elif event.feature in (preload.MAX, preload.THRESHOLD):
            self._review(f"feature {event.feature} of dom0 changed")

    def _property_changed(self, event: PropertyEvent) -> None:
        if not event.ahead and event.name in _DECIDING:
            self._review(f"property {event.name} changed")

    def _unpaused(self, event: DomainUnpaused) -> None:
        """Somebody uses one that waits without having asked for it."""
        qube = self._keeper.system.qubes.get(event.subject)
        template = preload.template_of_waiting(self._keeper, event.subject)
        if qube is not None and template is not None and qube.features.get(preload.COMPLETED):
            self._power.lives.behind(self._use(template, qube.name))

    async def _use(self, template: Qube, name: str) -> None:
        draft = Draft(self._keeper)
        waiting.leave(draft, name)
        draft.apply()
        self._used(template.name)
        await self._hand_over(template, name)

    def _stopped(self, event: DomainShutdown) -> None:
        """What was written to a template makes those that wait old."""
        for name in (event.subject, *self._keeper.referrers.of(event.subject)):
            self._review_one(name, "the template was shut down")

    def _review(self, reason: str, later: bool = False) -> None:
        for qube in self._keeper.system.qubes.values():
            self._review_one(qube.name, reason, later)

    def _review_one(self, name: str, reason: str, later: bool = False) -> None:
        """Fill the queue of this template, ``later`` where it is to wait for the template's delay."""
        template = self._keeper.system.qubes.get(name)
        if template is None:
            return
        there, wanted = len(references.waiting(template)), preload.wanted(self._keeper, template)
        if there or wanted:
            self._later(template, reason, preload.delay(template) if later and there <= wanted else 0.0)

    def _later(self, template: Qube, reason: str, delay: float) -> None:
        """Fill the queue after ``delay`` seconds, once, however often that is asked for."""
        known = self._timers.get(template.name)
        loop = asyncio.get_running_loop()
        if self._closing or (known is not None and known.when() <= loop.time() + delay):
            return
        if known is not None:
            known.cancel()
        begin = loop.call_later(delay, self._begin, template.name, reason, delay)
        self._timers[template.name] = begin

    def _begin(self, name: str, reason: str, delay: float) -> None:
        del self._timers[name]
        if name in self._filling:
            self._filling[name].again = reason
        elif name not in self._held:
            self._filling[name] = _Filling()
            self._power.lives.behind(self._fill(name, reason, delay))

    async def _fill(self, name: str, reason: str, delay: float) -> None:
        """Make the queue what it is to be. What fails is logged, and tried again with the next occasion."""
        told = False
        try:
            await self._clear(name)
            while (template := self._lacking(name)) is not None:
                if not await self._has_room(template):
                    _log.warning("no disposable of %r is made ahead: the host's memory is short", name)
                    return
                if not told:
                    self._keeper.bus.publish(PreloadStart(name, reason, delay))
                    told = True
                await self._add(template)
        finally:
            filling = self._filling.pop(name)
            filling.ended.set()
            if filling.again is not None:
                self._review_one(name, filling.again)

    async def _clear(self, name: str) -> None:
        """Remove those of the queue that are too many or can never be handed out."""
        template = self._keeper.system.qubes.get(name)
        good = 0
        for other in () if template is None else references.waiting(template):
            qube = self._ready(other)
            if qube is not None and await self._is_current(name, qube) and good < self._wanted(name):
                good += 1
            else:
                await self._dismiss(name, other)

    def _wanted(self, name: str) -> int:
        template = self._keeper.system.qubes.get(name)
        return 0 if template is None or name in self._held else preload.wanted(self._keeper, template)

    def _lacking(self, name: str) -> Qube | None:
        """The template, as long as another disposable is to be made of it now."""
        template = self._keeper.system.qubes.get(name)
        if self._closing or template is None or name in self._timers:
            return None
        return template if len(references.waiting(template)) < self._wanted(name) else None

    async def _has_room(self, template: Qube) -> bool:
        kept = preload.kept_free(self._keeper)
        if not kept:
            return True
        return await self._keeper.hypervisor.free_memory() - needed_memory(self._keeper, template) >= kept

    async def _add(self, template: Qube) -> None:
        qube = await self._creation.create_disposable(None, template)
        try:
            await self._power.start(qube)
            await self._power.pause(qube)
        except QubesError:
            await self._drop(qube)
            raise
        draft = Draft(self._keeper)
        waiting.complete(draft, qube.name)
        draft.apply()
        await self._keeper.durable()

    async def _drop(self, qube: Qube) -> None:
        """Take it down and remove it, and from the queue also where it was told to stay."""
        with suppress(QubeNotStarted):
            await self._power.kill(qube)
        try:
            async with self._power.lives.holding(qube):
                await self._power.lives.clean_up(qube.name)
        except NoSuchQube:
            return
        draft = Draft(self._keeper)
        waiting.leave(draft, qube.name)
        draft.apply()
        await self._keeper.durable()

    async def _dismiss(self, template: str, name: str) -> None:
        """Have the queue without this name, and the disposable go that it stands for.

        A queue that somebody else wrote, into a file or a backup, may name any qube: such a one is left
        alone.
        """
        owner = preload.template_of_waiting(self._keeper, name)
        if owner is not None and owner.name == template:
            await self._drop(self._keeper.system.qubes[name])
        elif template in self._keeper.system.qubes:
            draft = Draft(self._keeper)
            waiting.strike(draft, template, name)
            draft.apply()
            await self._keeper.durable()


def _is_outdated(pool: Pool, volume: VolumeConfig) -> bool:
    return bool(pool.is_outdated(volume))


def _size(pool: Pool, volume: VolumeConfig) -> int:
    return pool.size(volume)
