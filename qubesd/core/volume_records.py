"""What is kept of a volume: its settings, and its size, which counts against its owner's budget."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace

from qubesd.core.draft import Draft
from qubesd.core.keeper import Keeper
from qubesd.core.storage import Storage
from qubesd.core.usage import Grown
from qubesd.errors import PermissionDenied, QubesError, StoreError
from qubesd.model.state import Qube, VolumeConfig
from qubesd.model.volumes import current
from qubesd.storage.pool import Pool

_log = logging.getLogger(__name__)


def volume_of(keeper: Keeper, qube: Qube, name: str) -> VolumeConfig:
    """The volume of that name as it is now; ``PermissionDenied`` where there is none (spec 0)."""
    volume = qube.volumes.get(name)
    if volume is None:
        raise PermissionDenied(f"qube {qube.name!r} has no such volume; list them with admin.vm.volume.List")
    return current(keeper, qube, volume)


class VolumeRecords:
    """The records of the volumes of one keeper's qubes. The caller holds the lock of the qube's life."""

    def __init__(self, keeper: Keeper, storage: Storage) -> None:
        self._keeper = keeper
        self._storage = storage

    def room(self, qube: Qube, name: str, size: int) -> AbstractContextManager[None]:
        """Inside, the volume of that name counts as having at least this size, in bytes.

        Raises:
            OverLimit: the qube's owner may not have so much.
        """
        return self._keeper.budgets.holding(Grown(qube.uuid, name, size))

    async def learn(self, qubes: Iterable[Qube]) -> None:
        """Take down the sizes that volumes of these halted qubes have. An earlier daemon may have noted
        others, ahead of changes that it did not end."""
        kept = [
            (qube, volume) for qube in qubes for volume in self._storage.volumes(qube) if volume.save_on_stop
        ]
        sizes = await self._storage.work(self._sizes, [volume for _, volume in kept])
        for (qube, volume), size in zip(kept, sizes, strict=True):
            if size not in (None, volume.size):
                _log.warning("volume %r has %d bytes, and %d were noted", volume.vid, size, volume.size)
                await self.put(qube, replace(volume, size=size), limited=False)

    async def remember_size(self, qube: Qube, volume: VolumeConfig) -> None:
        """Take down the size that the volume has now, durably; a driver may have rounded it up."""
        size = await self._storage.read(size_of, volume)
        if size != volume.size:
            await self.put(qube, replace(volume, size=size), limited=False)

    @asynccontextmanager
    async def sized(self, qube: Qube, volume: VolumeConfig, size: int) -> AsyncIterator[None]:
        """Inside, the volume gets the size that is taken down ahead, durably: where that fails its content is
        still what it was. What fails inside has the size before taken down again.

        Raises:
            StoreError: it cannot be taken down.
        """
        sized = replace(volume, size=size)
        if size != volume.size:
            await self.put(qube, sized, limited=False)
        try:
            yield
        except BaseException:
            if size != volume.size:
                await self._put_back(qube, volume)
            raise
        await self.remember_size(qube, sized)

    def _sizes(self, volumes: Iterable[VolumeConfig]) -> list[int | None]:
        """``None`` for what cannot be looked at: whoever needs it is told why."""
        sizes = list[int | None]()
        for volume in volumes:
            try:
                sizes.append(size_of(self._storage.pool(volume.pool), volume))
            except QubesError:
                sizes.append(None)
        return sizes

    async def _put_back(self, qube: Qube, volume: VolumeConfig) -> None:
        try:
            await self.put(qube, volume, limited=False)
        except StoreError as error:
            _log.error("volume %r is noted with a size that it has not: %s", volume.vid, error)

    async def put(self, qube: Qube, volume: VolumeConfig, limited: bool = True) -> None:
        """Take down what the volume is, durably; ``limited`` as for ``Draft.apply``."""
        self._storage.pool(volume.pool).check(volume)
        draft = Draft(self._keeper)
        now = self._keeper.current(qube)
        draft.put(replace(now, volumes={**now.volumes, volume.name: volume}))
        draft.apply(limited)
        await self._keeper.durable()


def size_of(pool: Pool, volume: VolumeConfig) -> int:
    """Bytes that the volume has now. Blocks on its pool."""
    return pool.size(volume)
