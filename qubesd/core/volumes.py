"""What is done with the volumes of qubes (``spec/admin-calls.md`` 6, ``spec/storage.md`` 3).

Whatever changes a volume holds the lock of its qube's life, so that no start, stop or removal comes between;
what was changed is then part of the system, and durable, before anyone is told.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from qubesd.core.guests import Guests
from qubesd.core.keeper import Keeper
from qubesd.core.lives import Lives
from qubesd.core.storage import Key, Storage, key
from qubesd.core.tokens import Copied, Tokens
from qubesd.core.volume_records import VolumeRecords, size_of, volume_of
from qubesd.errors import (
    BadValue,
    NoSuchPool,
    NoSuchVolume,
    QubeNotHalted,
    QubeNotRunning,
    QubesError,
    StorageError,
    StoreError,
)
from qubesd.events import VolumeImportBegin, VolumeImportEnd, VolumeReplaced
from qubesd.model.properties import read
from qubesd.model.state import Klass, Qube, VolumeConfig
from qubesd.model.volumes import current
from qubesd.storage.images import reporting
from qubesd.storage.pool import Pool, Revision

_log = logging.getLogger(__name__)

_IDLE = 600.0
"""Seconds without a byte after which an import may be taken for abandoned."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A volume as it is now; ``outdated`` is ``None`` where its driver cannot tell, ``path`` where it has
    none."""

    size: int
    usage: int
    path: str | None
    outdated: bool | None


@dataclass(frozen=True, slots=True)
class _Import:
    """An import under way: the uuids of its caller and of the qube, where so many bytes are written to, and
    what is kept free for it of the owner's budget."""

    caller: str
    uuid: str
    path: Path
    size: int
    room: ExitStack


class Volumes:
    """The verbs on the volumes of one keeper's qubes. What a verb began is finished, also when its caller has
    gone."""

    def __init__(self, keeper: Keeper, storage: Storage, lives: Lives, guests: Guests) -> None:
        self._guests = guests
        self._keeper = keeper
        self._storage = storage
        self._lives = lives
        self._records = VolumeRecords(keeper, storage)
        self._imports: dict[Key, _Import] = {}
        self.tokens = Tokens(time.monotonic)

    async def open(self) -> None:
        """Once, after ``Storage.settle``: end what an earlier daemon began and did not."""
        qubes = self._keeper.system.qubes.values()
        await self._records.learn([one for one in qubes if self._keeper.running(one.name).state == "Halted"])

    async def facts(self, volume: VolumeConfig) -> Facts:
        return await self._storage.read(_facts, volume)

    async def revisions(self, volume: VolumeConfig) -> list[Revision]:
        """The oldest first."""
        return await self._storage.read(_revisions, volume)

    async def snapshot(self, qube: Qube, name: str) -> str:
        """Keep the last committed state as a revision; its id."""
        return await self._lives.finish(self._snapshot(qube, name))

    async def revert(self, qube: Qube, name: str, revision: str) -> None:
        """Go back to a revision.

        Raises:
            NoSuchRevision: there is none of this id.
            StorageError: the volume is in use.
            OverLimit: it was larger then than its owner may have it now.
        """
        await self._lives.finish(self._revert(qube, name, revision))

    async def resize(self, qube: Qube, name: str, size: int) -> None:
        """Make the volume larger, ``size`` in bytes.

        Raises:
            StorageError: it cannot be, or it was and the running qube does not know.
            OverLimit: its owner may not have so much.
        """
        await self._lives.finish(self._resize(qube, name, size))

    async def clear(self, qube: Qube, name: str) -> None:
        """Replace the content by nothing, of the same size."""
        await self._lives.finish(self._clear(qube, name))

    async def clone(self, qube: Qube, name: str, copied: Copied) -> None:
        """Replace the content, and the size, by the last committed state of another volume.

        Raises:
            NoSuchPool, NoSuchVolume: the other one is gone.
            OverLimit: its owner may not have so much.
        """
        await self._lives.finish(self._clone(qube, name, copied))

    async def keep_revisions(self, qube: Qube, name: str, number: int) -> None:
        """Keep so many revisions from the next commit on; -1 for none, and no state apart while it runs.

        Raises:
            BadValue: the driver does not keep so many.
            QubeNotHalted: the qube runs, or a disposable made of it, and it is about -1.
        """
        if number < -1:
            raise BadValue("revisions_to_keep is at least -1")
        async with self._lives.holding(qube):
            volume = volume_of(self._keeper, self._keeper.current(qube), name)
            if -1 in (number, volume.revisions_to_keep) and number != volume.revisions_to_keep:
                self._refuse_running(qube)
            await self._records.put(qube, replace(volume, revisions_to_keep=number))

    async def set_rw(self, qube: Qube, name: str, rw: bool) -> None:
        """Let the guest write to it or not; ``QubeNotHalted`` where the qube runs."""
        async with self._lives.holding(qube):
            _refuse_not_halted(self._keeper, qube)
            volume = volume_of(self._keeper, self._keeper.current(qube), name)
            await self._records.put(qube, replace(volume, rw=rw))

    async def set_ephemeral(self, qube: Qube, name: str, ephemeral: bool) -> None:
        """Encrypt what is written with a key that nobody keeps; ``BadValue`` for a volume that is kept."""
        async with self._lives.holding(qube):
            volume = volume_of(self._keeper, self._keeper.current(qube), name)
            if ephemeral and (not volume.rw or volume.snap_on_start or volume.save_on_stop):
                raise BadValue(f"volume {name!r} cannot be ephemeral: only one that starts empty can")
            await self._records.put(qube, replace(volume, ephemeral=ephemeral))

    async def begin_import(self, caller: Qube, qube: Qube, name: str, size: int | None) -> tuple[int, Path]:
        """A path for new content, and how many bytes are to be written there.

        Args:
            size: the new size in bytes; ``None`` for that of the volume.

        Raises:
            QubeNotHalted: the qube runs.
            StorageError: another import is under way.
            OverLimit: its owner may not have so much. What is wanted counts until the import ends.
        """
        async with self._lives.holding(qube):
            _refuse_not_halted(self._keeper, qube)
            volume = volume_of(self._keeper, self._keeper.current(qube), name)
            await self._drop_abandoned(volume)
            wanted = await self._storage.read(size_of, volume) if size is None else size
            with ExitStack() as room:
                room.enter_context(self._records.room(qube, name, volume.size if size is None else size))
                path = await self._storage.do(lambda pool, known: pool.begin_import(known, wanted), volume)
                self._imports[key(volume)] = _Import(caller.uuid, qube.uuid, path, wanted, room.pop_all())
        self._keeper.bus.publish(VolumeImportBegin(qube.name, name, str(wanted)))
        return wanted, path

    async def end_import(self, caller: Qube, qube: Qube, name: str, failure: str | None) -> None:
        """Take over what was written, or drop it because of a failure, given in checked words.

        Raises:
            QubesError: that failure, or that no import by this caller is under way.
            QubeNotHalted: the qube was started meanwhile; what was written is dropped.
        """
        await self._lives.finish(self._end_import(caller, qube, name, failure))

    async def replace(self, caller: Qube, qube: Qube, name: str, data: bytes) -> None:
        """Replace the content by these bytes, and nothing behind them up to the volume's size.

        Raises:
            BadValue: they are more than that.
            QubeNotHalted, StorageError: as ``begin_import``.
        """
        await self._lives.finish(self._replace(caller, qube, name, data))

    async def _replace(self, caller: Qube, qube: Qube, name: str, data: bytes) -> None:
        size, path = await self.begin_import(caller, qube, name, None)
        failure = None if len(data) <= size else f"volume {name!r} has {size} bytes, not {len(data)}"
        try:
            if failure is None:
                await self._storage.work(_write, path, data)
        except StorageError as error:
            failure = str(error)
        await self._end_import(caller, qube, name, failure)

    async def _snapshot(self, qube: Qube, name: str) -> str:
        async with self._changing(qube, name) as volume:
            return await self._storage.do(lambda pool, known: pool.snapshot(known), volume)

    async def _revert(self, qube: Qube, name: str, revision: str) -> None:
        async with self._changing(qube, name) as volume:
            known = await self._storage.read(_revisions, volume)
            before = next((found.size for found in known if found.id == revision), None)
            with self._records.room(qube, name, before or 0):
                async with self._records.sized(qube, volume, before or volume.size):
                    await self._storage.do(lambda pool, known: pool.revert(known, revision), volume)

    async def _resize(self, qube: Qube, name: str, size: int) -> None:
        async with self._lives.holding(qube):
            volume = volume_of(self._keeper, self._keeper.current(qube), name)
            if not volume.rw:
                raise StorageError(f"volume {name!r} is read-only and cannot be resized")
            with self._records.room(qube, name, size):
                before = await self._storage.read(size_of, volume)
                await self._storage.do(lambda pool, known: pool.resize(known, size), volume)
                try:
                    await self._records.put(qube, replace(volume, size=size))
                except StoreError:
                    await self._shrink_back(volume, before)
                    raise
            if self._keeper.running(qube.name).state != "Halted":
                await self._tell_guest(qube, name, size)

    async def _tell_guest(self, qube: Qube, name: str, size: int) -> None:
        try:
            if self._keeper.running(qube.name).state != "Running":
                raise QubeNotRunning("it cannot react now")
            await self._guests.call(qube, "qubes.ResizeDisk", name.encode("ascii"))
        except QubesError as error:
            _log.warning("qube %r was not told of the new size of %r: %s", qube.name, name, error)
            raise StorageError(
                f"volume {name!r} has {size} bytes now, but the running qube was not told: "
                "shut it down and start it again"
            ) from error

    async def _shrink_back(self, volume: VolumeConfig, size: int) -> None:
        """What was added holds nothing yet. Where a driver never shrinks, the volume stays larger."""
        try:
            await self._storage.do(lambda pool, known: pool.resize(known, size), volume)
        except StorageError as error:
            _log.error("volume %r stays larger than was answered: %s", volume.vid, error)

    async def _clear(self, qube: Qube, name: str) -> None:
        async with self._changing(qube, name) as volume:
            size = await self._storage.read(size_of, volume)
            await self._storage.do(lambda pool, known: pool.begin_import(known, size), volume)
            self._keeper.bus.publish(VolumeImportBegin(qube.name, name, str(size)))
            await self._take_over(qube, volume, size)

    async def _clone(self, qube: Qube, name: str, copied: Copied) -> None:
        async with self._changing(qube, name) as volume:
            source = self._source(copied)
            self._storage.refuse_direct(source)
            source_pool = self._storage.pool(source.pool)
            # Until it was read, the source must not grow, nor be started where it keeps no state apart.
            async with self._storage.holding(volume, source):
                pool = self._storage.pool(volume.pool)
                size = await self._storage.work(source_pool.size, source)
                with self._records.room(qube, name, size):
                    async with self._records.sized(qube, volume, size):
                        await self._storage.work(pool.clone, volume, source_pool, source)
            self._keeper.bus.publish(VolumeReplaced(qube.name, name, source.vid))

    def _source(self, copied: Copied) -> VolumeConfig:
        owner = self._keeper.system.qubes.get(copied.qube)
        if owner is None or owner.uuid != copied.uuid or copied.volume not in owner.volumes:
            raise NoSuchVolume("the volume that was to be copied is gone")
        source = current(self._keeper, owner, owner.volumes[copied.volume])
        if source.pool not in self._keeper.system.pools:
            raise NoSuchPool("the pool of the volume that was to be copied is gone")
        return source

    async def _end_import(self, caller: Qube, qube: Qube, name: str, failure: str | None) -> None:
        async with self._lives.holding(qube):
            volume = volume_of(self._keeper, self._keeper.current(qube), name)
            known = self._imports.get(key(volume))
            if known is None or (known.caller, known.uuid) != (caller.uuid, qube.uuid):
                raise QubesError(f"no import into volume {name!r} is under way")
            del self._imports[key(volume)]
            halted = self._keeper.running(qube.name).state == "Halted"
            with known.room:
                await self._take_over(qube, volume, known.size if failure is None and halted else None)
            if failure is not None:
                raise QubesError(failure)
            if not halted:
                raise QubeNotHalted(f"qube {qube.name!r} was started during the import; nothing was imported")

    async def _take_over(self, qube: Qube, volume: VolumeConfig, size: int | None) -> None:
        """Make what was imported, of this size, the volume's content. It is dropped where the size cannot be
        noted, or is ``None``."""
        untouched, taken = True, False
        try:
            if size is not None:
                async with self._records.sized(qube, volume, size):
                    untouched = False
                    await self._storage.do(lambda pool, known: pool.end_import(known, True), volume)
                    taken = True
        finally:
            try:
                if untouched:
                    await self._storage.do(lambda pool, known: pool.end_import(known, False), volume)
            finally:
                self._keeper.bus.publish(VolumeImportEnd(qube.name, volume.name, taken))

    async def _drop_abandoned(self, volume: VolumeConfig) -> None:
        known = self._imports.get(key(volume))
        if known is not None and await self._storage.work(_is_idle, known.path):
            del self._imports[key(volume)]
            with known.room:
                await self._storage.do(lambda pool, config: pool.end_import(config, False), volume)

    @asynccontextmanager
    async def _changing(self, qube: Qube, name: str) -> AsyncIterator[VolumeConfig]:
        """The volume, whose content is about to change; not the one that its running qube writes straight
        into."""
        async with self._lives.holding(qube):
            volume = volume_of(self._keeper, self._keeper.current(qube), name)
            self._storage.refuse_direct(volume)
            yield volume

    def _refuse_running(self, qube: Qube) -> None:
        """``QubeNotHalted`` where it runs, or a disposable made of it."""
        _refuse_not_halted(self._keeper, qube)
        for name in self._keeper.referrers.of(qube.name):
            other = self._keeper.system.qubes[name]
            if other.klass is Klass.DISPOSABLE and read(self._keeper, other, "template").value == qube.name:
                _refuse_not_halted(self._keeper, other)


def _refuse_not_halted(keeper: Keeper, qube: Qube) -> None:
    if keeper.running(qube.name).state != "Halted":
        raise QubeNotHalted(f"qube {qube.name!r} is not halted; shut it down first")


def _facts(pool: Pool, volume: VolumeConfig) -> Facts:
    return Facts(pool.size(volume), pool.usage(volume), pool.path(volume), pool.is_outdated(volume))


def _revisions(pool: Pool, volume: VolumeConfig) -> list[Revision]:
    return pool.revisions(volume)


def _write(path: Path, data: bytes) -> None:
    with reporting(f"{path}: cannot be written"), path.open("r+b") as file:
        file.write(data)


def _is_idle(path: Path) -> bool:
    """Whether nothing was written there for long; also where it has gone."""
    try:
        return time.time() - os.stat(path).st_mtime > _IDLE
    except FileNotFoundError:
        return True
