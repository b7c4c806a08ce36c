"""Carrying out backups by the profiles of an administrator (``spec/backup.md`` 2).

A backup reads committed volumes only, so qubes go on running, start and stop meanwhile; where a volume keeps
no state apart from what its qube writes, that qube cannot start while it is read.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE

from qubesd.backup import home
from qubesd.backup.destination import to_file, to_service
from qubesd.backup.encryption import Cost
from qubesd.backup.header import QUBES, Header
from qubesd.backup.notes import Notes
from qubesd.backup.processes import Processes
from qubesd.backup.profile import LONGEST_PASSPHRASE, Profile, check_passphrase, load
from qubesd.backup.writing import ArchiveWriter
from qubesd.core import folders
from qubesd.core.backup_content import Content, check_complete, chosen, content_of, described
from qubesd.core.backup_files import EMPTY, read_added
from qubesd.core.backup_job import Job
from qubesd.core.guests import Guests
from qubesd.core.keeper import Keeper
from qubesd.core.settings import setting
from qubesd.core.storage import Storage
from qubesd.disk import why
from qubesd.errors import (
    BackupAlreadyRunning,
    BackupCancelled,
    NoSuchQube,
    ProtocolError,
    QubeNotHalted,
    QubesError,
    StoreError,
)
from qubesd.events import BackupProgress
from qubesd.model.properties import table
from qubesd.model.state import DOM0, Qube, VolumeConfig
from qubesd.storage.pool import is_direct
from qubesd.store.writing import Writer


@dataclass(frozen=True, slots=True)
class Summary:
    """What a profile would save now, and the names of the qubes that it leaves out."""

    contents: list[Content]
    left_out: list[Qube]


class Backups:
    """The backups of one keeper's system; of one profile one at a time.

    Args:
        cost: what a guess at the passphrase is to cost whoever finds an archive.
    """

    def __init__(self, keeper: Keeper, storage: Storage, guests: Guests, cost: Cost | None = None) -> None:
        self._keeper = keeper
        self._storage = storage
        self._guests = guests
        self._cost = cost or Cost()
        self._work = keeper.config.qubes_dir / ".backups"
        self._notes = Notes(self._work)
        self._jobs: dict[str, Job] = {}
        self._last = 0

    async def open(self) -> None:
        """Remove what a daemon that was killed left."""
        await self._storage.work(self._notes.clear)

    async def info(self, name: str) -> Summary:
        """What a backup by the profile would save.

        Raises:
            NoSuchBackupProfile, QubesError: there is no such profile, or it cannot be used.
        """
        profile = await self._storage.work(load, self._keeper.config.backup_dir, name)
        contents = await content_of(self._keeper, self._storage, chosen(self._keeper, profile))
        inside = {content.qube.name for content in contents}
        rest = [qube for qube in self._keeper.system.in_order() if qube.name not in inside]
        return Summary(contents, rest)

    async def execute(self, name: str) -> None:
        """Back up by the profile, to the end. What fails or is cancelled leaves nothing behind.

        Raises:
            NoSuchBackupProfile, BackupAlreadyRunning: so it is.
            BackupCancelled: somebody asked for that, or gave an empty passphrase.
            QubeNotHalted: a volume keeps no state apart from what its running qube writes.
            QubesError: whatever else went wrong.
        """
        if name in self._jobs:
            raise BackupAlreadyRunning(f"a backup by the profile {name[:64]!r} is running; wait or cancel it")
        job = Job(lambda percent: self._keeper.bus.publish(BackupProgress(None, name, percent)))
        self._jobs[name] = job
        try:
            profile = await job.run(load, self._keeper.config.backup_dir, name)
            saved = await self._carry_out(job, profile)
        finally:
            del self._jobs[name]
            job.close()
        await self._take_down(saved)

    def cancel(self, name: str) -> None:
        """Ask the backup by this profile to stop; ``QubesError`` where none is running."""
        job = self._jobs.get(name)
        if job is None:
            raise QubesError(f"no backup by the profile {name[:64]!r} is running")
        job.cancel()

    async def _carry_out(self, job: Job, profile: Profile) -> list[Content]:
        check_complete(self._keeper, profile)
        contents = await content_of(self._keeper, self._storage, chosen(self._keeper, profile))
        if not contents:
            raise QubesError(f"backup profile {profile.name!r} selects nothing that could be saved")
        for content in contents:
            if content.trouble:
                raise QubesError(content.trouble)
            for volume in content.volumes:
                self._refuse_running(volume)
        passphrase = await self._passphrase(job, profile)
        # As it is now, when the last thing that may take long has been done.
        system = described(self._keeper.system, contents)
        inside = await job.run(Writer().dump, system)
        head = Header(self._new_id(), profile.compression)
        job.expect(sum(content.size for content in contents))
        await job.run(self._notes.clear)  # a disk that was away at the start may be there now
        async with job.inside(self._destination(job.processes, profile)) as target:
            spool = await job.run(self._spool)
            writer = ArchiveWriter(head, passphrase, target, spool, job.processes, self._cost)
            await job.run(writer.begin)
            await job.run(writer.add_file, QUBES, inside)
            for content in contents:
                await self._add(job, writer, content)
        return contents

    async def _add(self, job: Job, writer: ArchiveWriter, content: Content) -> None:
        """All of a qube. What could be missed least comes first: its images are known to be there."""
        if content.home is not None:
            place = content.home
            await job.run(writer.add, content.path, lambda out: home.write_home(place, out, job.processes))
            job.count(content.size)
            return
        empty = not content.volumes
        for name, file in content.files:
            data = await job.run(folders.read, file)
            if data is not None:  # it was not removed meanwhile
                await job.run(writer.add_file, content.path + name, data)
                empty = False
        for name, file in content.added:
            await job.run(writer.add_file, content.path + name, await job.run(read_added, file))
            empty = False
        if empty:
            await job.run(writer.add_file, content.path + EMPTY, b"")
        for volume in content.volumes:
            async with self._exported(job, volume) as image:
                name = f"{content.path}{volume.name}.img"
                await job.run(writer.add_image, name, image, job.count)

    @asynccontextmanager
    async def _exported(self, job: Job, volume: VolumeConfig) -> AsyncIterator[Path]:
        """The last committed state, which stays the same inside."""
        pool = self._storage.pool(volume.pool)
        async with AsyncExitStack() as locked, AsyncExitStack() as exported:
            await job.wait(lambda: locked.enter_async_context(self._storage.holding(volume)))
            self._refuse_running(volume)
            image = await exported.enter_async_context(job.inside(pool.export(volume)))
            if pool.exports_apart and not is_direct(volume):
                await locked.aclose()
            yield image

    def _refuse_running(self, volume: VolumeConfig) -> None:
        """It is told by the volume, whose name has that of its qube."""
        if is_direct(volume) and self._storage.in_use(volume):
            raise QubeNotHalted(
                f"volume {volume.vid!r} keeps no state apart from what its running qube writes; "
                "shut the qube down first"
            )

    async def _passphrase(self, job: Job, profile: Profile) -> str:
        """The passphrase, which a person may have to type in a qube first."""
        if profile.passphrase is not None:
            return profile.passphrase
        qube = self._named(str(profile.passphrase_vm))
        words = self._guests.about_to_run(qube, f"qubes.BackupPassphrase+{profile.name}")
        return _answered(await job.run(_answer, job.processes, words), qube.name)

    def _destination(self, processes: Processes, profile: Profile) -> AbstractContextManager[int]:
        if profile.destination_vm == DOM0:
            return to_file(profile.destination_path, self._notes, processes)
        qube = self._named(profile.destination_vm)
        words = self._guests.about_to_run(qube, "qubes.Backup")
        return to_service(words, profile.destination_path, processes)

    def _named(self, name: str) -> Qube:
        """A qube of the profile, which was there when the backup began."""
        qube = self._keeper.system.qubes.get(name)
        if qube is None:
            raise QubesError(f"qube {name!r} was removed meanwhile; mend the profile")
        return qube

    def _new_id(self) -> str:
        """What no other backup is called: the time, of which each is used once."""
        self._last = max(int(time.time()), self._last + 1)
        return time.strftime(f"%Y%m%dT%H%M%S-{os.getpid()}", time.gmtime(self._last))

    def _spool(self) -> Path:
        """Where chunks are put aside, on a disk that has room for volumes. Blocks."""
        try:
            self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise QubesError(f"{self._work}: cannot be made: {why(error)}") from error
        return self._work

    async def _take_down(self, saved: list[Content]) -> None:
        """That these qubes were saved now, durably."""
        now = int(time.time())
        for content in saved:
            if "backup_timestamp" in table(content.qube.klass):
                try:
                    setting(self._keeper, content.qube, "backup_timestamp", now).apply()
                except NoSuchQube:
                    continue  # it was removed meanwhile
        try:
            await self._keeper.durable()
        except StoreError as error:
            raise StoreError(f"the backup is complete, but its time cannot be noted: {error}") from error


def _answer(processes: Processes, words: Sequence[str]) -> bytes:
    """What the program writes, as far as it can be a passphrase."""
    with processes.running(words, DEVNULL, PIPE) as process:
        assert process.popen.stdout is not None
        untrusted_answer = b""
        while len(untrusted_answer) <= 2 * LONGEST_PASSPHRASE:
            untrusted_piece = os.read(process.popen.stdout.fileno(), LONGEST_PASSPHRASE)
            if not untrusted_piece:
                break
            untrusted_answer += untrusted_piece
        processes.check()
        process.popen.stdout.close()
        process.finish()
    return untrusted_answer


def _answered(untrusted_answer: bytes, qube: str) -> str:
    """The passphrase that a qube gave."""
    try:
        untrusted_text = untrusted_answer.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ProtocolError(f"the passphrase from qube {qube!r} is not UTF-8") from None
    if not untrusted_text:
        raise BackupCancelled(f"the backup was cancelled: qube {qube!r} gave an empty passphrase")
    if "\n" in untrusted_text:
        raise ProtocolError(f"the passphrase from qube {qube!r} has more than one line")
    return check_passphrase(untrusted_text, f"qube {qube!r}")
