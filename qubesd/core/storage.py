"""The volumes of the qubes: each verb of a driver in a thread, one at a time on a volume.

A verb that began goes on to its end, also when its caller has gone: a thread cannot be stopped, and half a
verb is nothing that anyone could go on from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from qubesd.core import folders
from qubesd.core.keeper import Keeper
from qubesd.core.pending import Pending, Record
from qubesd.errors import NoSuchPool, QubeError, QubeExists, QubesError, StorageError
from qubesd.events import QubeRemovedFromDisk
from qubesd.model.lineage import template_of
from qubesd.model.state import Klass, PoolConfig, Qube, VolumeConfig
from qubesd.model.volumes import current, is_ephemeral, targets
from qubesd.storage import commands, drivers, encryption
from qubesd.storage.pool import Kind, Pool, is_direct, kind
from qubesd.virt.hypervisor import Disk

T = TypeVar("T")
_log = logging.getLogger(__name__)

_THREADS = 8

Key = tuple[str, str]
"""The pool and vid of a volume."""


class Storage:
    """The pools of one keeper's system, and the volumes in them."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.environment = drivers.Environment(keeper.config.callback_file)
        self._pools: dict[str, Pool] = {}
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._threads = ThreadPoolExecutor(_THREADS, "storage")
        self._pending = Pending(keeper.config.qubes_dir / ".pending")
        self._marks = keeper.config.run_dir / "qubes"
        self._in_use: set[Key] = set()
        self._claimed: dict[str, Qube] = {}
        self._left: dict[str, Record] = {}
        """Files of removed qubes that could not be removed, by the name of the qube."""

    async def open(self) -> None:
        """Open the pools and finish what an earlier daemon was doing when it ended.

        A pool that cannot be used is named in the log; whoever needs it is told why.
        """
        for config in self._keeper.system.pools.values():
            try:
                pool = self.pool(config.name)
                await self.work(pool.open)
                await self.work(pool.tidy)
            except QubesError as error:
                _log.error("%s", error)
        for record in await self.work(lambda: list(self._pending.load())):
            if record.uuid not in self._keeper.system.by_uuid:
                _log.warning("qube %r was being made or removed; removing its files", record.name)
            await self._agree(record)

    async def settle(self, running: Iterable[Qube]) -> None:
        """Once, after ``open``: commit or drop what stopped qubes wrote, and know what running ones use."""
        runs = {qube.name for qube in running}
        for qube in self._keeper.system.qubes.values():
            if qube.name in runs:
                self._in_use.update(map(key, self.volumes(qube)))
        halted = [qube for qube in self._keeper.system.qubes.values() if qube.name not in runs]
        volumes = [volume for qube in halted for volume in self.volumes(qube)]
        async with self.holding(*volumes):
            await self.work(self._stop_all, volumes)

    async def close(self) -> None:
        """Wait for the verbs that are under way."""
        await asyncio.to_thread(self._threads.shutdown)

    def pool(self, name: str) -> Pool:
        """The pool of that name. Raises ``NoSuchPool``, or ``StorageError`` where it has no driver here."""
        config = self._keeper.system.pools.get(name)
        if config is None:
            raise NoSuchPool(f"no pool {name[:64]!r}")
        pool = self._pools.get(name)
        if pool is None or pool.config != config:
            pool = self._pools[name] = drivers.make(config, self.environment)
        return pool

    async def forget(self, config: PoolConfig) -> None:
        """A pool was removed: end what its driver has open; a failure is named in the log."""
        self._pools.pop(config.name, None)
        try:
            await self.work(drivers.make(config, self.environment).close)
        except QubesError as error:
            _log.error("pool %r was removed, but not put away: %s", config.name, error)

    def volumes(self, qube: Qube) -> list[VolumeConfig]:
        """The volumes of a qube as they are now, in the order of its devices."""
        return [current(self._keeper, qube, volume) for volume in qube.volumes.values()]

    def in_use(self, volume: VolumeConfig) -> bool:
        """Whether a qube that runs has it."""
        return key(volume) in self._in_use

    async def do(self, verb: Callable[[Pool, VolumeConfig], T], volume: VolumeConfig) -> T:
        """Carry out something on a volume, after what is under way on it."""
        async with self.holding(volume):
            return await self.work(verb, self.pool(volume.pool), volume)

    async def read(self, verb: Callable[[Pool, VolumeConfig], T], volume: VolumeConfig) -> T:
        """Look at a volume, whatever is under way on it."""
        return await self.work(verb, self.pool(volume.pool), volume)

    async def work(self, verb: Callable[..., T], *arguments: object) -> T:
        """Call something that blocks, in a thread; returns, or is cancelled, only when it has ended."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, verb, *arguments)
        cancelled: asyncio.CancelledError | None = None
        while not work.done():
            try:
                await asyncio.wait((work,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return work.result()

    @asynccontextmanager
    async def holding(self, *volumes: VolumeConfig) -> AsyncIterator[None]:
        """Hold the locks of these volumes; in one order, so that no two callers wait for each other."""
        async with AsyncExitStack() as held:
            for each in sorted({key(volume) for volume in volumes}):
                lock = self._locks.get(each)
                if lock is None:
                    lock = self._locks[each] = asyncio.Lock()
                await held.enter_async_context(lock)
            yield

    def claimed(self) -> frozenset[int]:
        """The numbers of the qubes that are being made."""
        return frozenset(qube.qid for qube in self._claimed.values())

    def is_filling(self, pool: str) -> bool:
        """Whether files of a qube are being made or removed in the pool of that name."""
        volumes = (volume for qube in self._claimed.values() for volume in qube.volumes.values())
        return any(volume.pool == pool for volume in volumes)

    @asynccontextmanager
    async def making(self, qube: Qube, firewall: bytes | None = None) -> AsyncIterator[None]:
        """The qube's files are there inside, and gone after it where an error leaves it.

        Args:
            firewall: the content of its file of firewall rules; ``None`` for none.

        Raises:
            QubeExists: a qube of this name is being made, or its files removed.
            StoreError, StorageError: the files cannot be made.
        """
        if qube.name in self._keeper.system.qubes:
            raise QubeExists(f"a qube {qube.name!r} is there already")
        if qube.name in self._claimed:
            raise QubeExists(f"a qube {qube.name!r} is being made or removed; try again")
        self._claimed[qube.name] = qube
        try:
            made = [volume for volume in self.volumes(qube) if kind(volume) is Kind.ORIGIN]
            for volume in self.volumes(qube):
                self.pool(volume.pool).check(volume)
            if not made and firewall is None:
                yield
                return
            if qube.name in self._left and not await self._agree(self._left[qube.name]):
                raise StorageError(
                    f"files of an earlier qube {qube.name!r} cannot be removed; see the daemon's log"
                )
            for volume in made:
                # What lies there is not ours, and must not go with what is made here if that fails.
                if await self.read(_is_there, volume):
                    raise StorageError(f"volume {volume.vid!r}: its image is there already; move it away")
            record = Record(qube.name, qube.uuid, tuple(made))
            await self.work(self._pending.put, record)
            try:
                await asyncio.gather(*(self.do(_create, volume) for volume in made))
                if firewall is not None:
                    place = folders.place(self._keeper.config, qube, folders.FIREWALL)
                    await self.work(folders.write, place, firewall)
                yield
            finally:
                await self._agree(record)
        finally:
            del self._claimed[qube.name]

    @asynccontextmanager
    async def removing(self, qube: Qube) -> AsyncIterator[None]:
        """Inside, the system forgets the qube, durably; then its files go, which is told. An error inside
        leaves them.

        Files that cannot be removed are named in the log, and tried again when a qube of this name is made
        or the daemon starts.

        Raises:
            QubeExists: it is being made.
            StoreError: what is to be done cannot be noted.
        """
        if qube.name in self._claimed:
            raise QubeExists(f"qube {qube.name!r} is being made or removed; try again")
        self._claimed[qube.name] = qube
        try:
            record = Record(qube.name, qube.uuid, tuple(self.volumes(qube)))
            await self.work(self._pending.put, record)
            durable = False
            try:
                yield
                durable = True
            finally:
                # Cut short between the change and its write, only the next start can know which it was.
                if durable or qube.uuid in self._keeper.system.by_uuid:
                    gone = await self._agree(record)
                    if durable and gone and qube.klass is not Klass.REMOTE:
                        self._keeper.bus.publish(QubeRemovedFromDisk(qube.name))
        finally:
            del self._claimed[qube.name]

    async def verify(self, qube: Qube) -> None:
        """``StorageError`` where an image is missing that a start needs."""
        volumes = self.volumes(qube)
        await self.work(self._verify_all, volumes)

    async def start(self, qube: Qube) -> tuple[Disk, ...]:
        """Make the volumes ready; the disks of the domain. Where one fails, those that began are stopped.

        Raises:
            StorageError: an image is missing or cannot be made.
            QubeError: a source is being written to by its running qube, which keeps no state apart.
        """
        volumes = self.volumes(qube)
        for volume in volumes:
            self._refuse_source_in_use(qube, volume)
        outcomes = await asyncio.gather(
            *(self.do(_start, volume) for volume in volumes), return_exceptions=True
        )
        self._in_use.update(map(key, volumes))
        failure = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
        try:
            if failure is not None:
                raise failure
            await self.work(self._mark, volumes)
            return await self.work(self._disks, qube, volumes)
        except BaseException:
            await self.stop(qube)
            raise

    async def stop(self, qube: Qube) -> None:
        """Commit or drop what was written; a failure is named in the log, the next start tries again."""
        volumes = self.volumes(qube)
        async with self.holding(*volumes):
            await self.work(self._close_all, qube, volumes)
            await self.work(self._stop_all, volumes)
            self._in_use.difference_update(map(key, volumes))
            await self.work(self._unmark, volumes)

    def refuse_direct(self, volume: VolumeConfig) -> None:
        """``StorageError`` where the running qube writes into the very image."""
        if is_direct(volume) and self.in_use(volume):
            raise StorageError(
                f"volume {volume.vid!r} keeps no state apart from what its running qube writes; "
                "shut the qube down first"
            )

    def _refuse_source_in_use(self, qube: Qube, volume: VolumeConfig) -> None:
        template = template_of(self._keeper.system, qube) if volume.snap_on_start else None
        while template is not None:
            source = template.volumes.get(volume.name)
            if source is not None and is_direct(source) and self.in_use(source):
                raise QubeError(
                    f"volume {volume.name!r} of the template is written to by its running qube and keeps no "
                    "state apart; shut the template down first"
                )
            template = template_of(self._keeper.system, template)

    async def _agree(self, record: Record) -> bool:
        """Remove the files of a qube that is not there; then what was noted of it can go.

        Returns whether no such files are left.
        """
        done = record.uuid in self._keeper.system.by_uuid or await self._remove(record)
        if done and await self.work(self._pending.drop, record.uuid):
            self._left.pop(record.name, None)
        else:
            self._left[record.name] = record
        return done

    async def _remove(self, record: Record) -> bool:
        """Whether every file of the qube is gone."""
        gone = True
        for volume in record.volumes:
            try:
                await self.do(_remove, volume)
            except QubesError as error:
                _log.error("files of a removed qube stay for now: %s", error)
                gone = False
        try:
            await self.work(folders.remove, self._keeper.config, record.name)
        except QubesError as error:
            _log.error("files of a removed qube stay for now: %s", error)
            gone = False
        return gone

    def _verify_all(self, volumes: Iterable[VolumeConfig]) -> None:
        for volume in volumes:
            self.pool(volume.pool).verify(volume)

    def _stop_all(self, volumes: Iterable[VolumeConfig]) -> None:
        for volume in volumes:
            try:
                self.pool(volume.pool).stop(volume)
            except QubesError as error:
                _log.error("%s", error)

    def _close_all(self, qube: Qube, volumes: Iterable[VolumeConfig]) -> None:
        """Forget the keys of the volumes that have one, whatever is set now."""
        for volume in volumes:
            name = encryption.device(qube.name, volume.name)
            try:
                if (encryption.MAPPER / name).exists():
                    encryption.close(commands.run, name)
            except QubesError as error:
                _log.error("%s of qube %r stays readable for now: %s", volume.name, qube.name, error)

    def _disks(self, qube: Qube, volumes: Iterable[VolumeConfig]) -> tuple[Disk, ...]:
        named = zip(targets([volume.name for volume in volumes]), volumes, strict=True)
        found = ((target, volume, self.pool(volume.pool)) for target, volume in named)
        disks = []
        for target, volume, pool in found:
            path, script = pool.path(volume), pool.script(volume)
            if path is not None and is_ephemeral(self._keeper, volume):
                if script is not None:
                    raise StorageError(f"volume {volume.vid!r}: its driver cannot encrypt; use another pool")
                path = encryption.opened(commands.run, path, encryption.device(qube.name, volume.name))
            if path is not None:
                disks.append(Disk(path, target, volume.rw, script))
        return tuple(disks)

    def _mark(self, volumes: Iterable[VolumeConfig]) -> None:
        for volume in volumes:
            try:
                self._mark_of(volume).touch()
            except OSError as error:
                _log.warning("%s: %s", self._marks, error)

    def _unmark(self, volumes: Iterable[VolumeConfig]) -> None:
        for volume in volumes:
            try:
                self._mark_of(volume).unlink(missing_ok=True)
            except OSError as error:
                _log.warning("%s: %s", self._marks, error)

    def _mark_of(self, volume: VolumeConfig) -> Path:
        """The state file by which dom0's programs know that a volume is in use (``spec/storage.md`` 3)."""
        text = f"{volume.pool}:{volume.vid}".replace("-", "--").replace("/", "-")
        return self._marks / f"volume-running-{text}"


def _create(pool: Pool, volume: VolumeConfig) -> None:
    pool.create(volume)


def _is_there(pool: Pool, volume: VolumeConfig) -> bool:
    try:
        pool.verify(volume)
    except StorageError:
        return False
    return True


def _remove(pool: Pool, volume: VolumeConfig) -> None:
    pool.remove(volume)


def _start(pool: Pool, volume: VolumeConfig) -> None:
    pool.start(volume)


def key(volume: VolumeConfig) -> Key:
    return volume.pool, volume.vid
