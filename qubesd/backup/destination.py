"""Where an archive goes: a file of dom0, which is there whole or not at all, or a service in a qube.

A file is written beside its place under a name of its own, synced, and takes its place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

from qubesd.backup.notes import UNFINISHED, FileStays, Notes
from qubesd.backup.processes import Processes, write_all
from qubesd.disk import reason, sync, why
from qubesd.errors import QubesError


@contextmanager
def to_file(path: str, notes: Notes, processes: Processes) -> Iterator[int]:
    """A descriptor; what was written to it inside is the archive at ``path`` after this, durably, and gone
    where an error leaves it.

    Args:
        path: a file in a folder that is there, or a folder, which gets a file named for the time.
        notes: where it is noted that the file is not whole.
        processes: those that write it; they can be cancelled until it takes its place.

    Raises:
        BackupCancelled: so it was, if only while the last of it went to the disk.
        QubesError: it cannot be written.
    """
    place = _place(path)
    unfinished = place.with_name(f".{place.name}{UNFINISHED}")
    with notes.about(unfinished):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(unfinished, flags, 0o600)
        except FileExistsError as error:
            raise QubesError(
                f"{place}: another backup is being written there; wait for it, or if none is, remove "
                f"{unfinished}"
            ) from error
        except OSError as error:
            raise QubesError(f"{place}: cannot be written: {why(error)}") from error
        try:
            with open(target, "wb", buffering=0) as file:
                yield file.fileno()
                os.fsync(file.fileno())
            processes.check()
            _take_place(unfinished, place)
        except BaseException as error:
            _remove(unfinished, error)
            if isinstance(error, OSError):
                raise QubesError(
                    f"{place}: cannot be written, nothing of it is left: {why(error)}"
                ) from error
            raise


@contextmanager
def to_service(words: Sequence[str], path: str, processes: Processes) -> Iterator[int]:
    """A descriptor to the standard input of the program that calls the service, after its first line.

    Raises:
        QubesError: the service fails; its own words are the reason.
    """
    line = path.replace("\r", "").replace("\n", "")
    with processes.running(words, stdin=PIPE, stdout=DEVNULL) as process:
        pipe = process.popen.stdin
        assert pipe is not None
        try:
            write_all(pipe.fileno(), f"{line}\n".encode("utf-8", "surrogateescape"))
            yield pipe.fileno()
            pipe.close()
        except BrokenPipeError:
            processes.check()
            process.finish()
            raise QubesError("the service in the qube took only a part of the backup") from None
        process.finish()


def _place(path: str) -> Path:
    place = Path(path)
    if not place.is_absolute():
        raise QubesError(f"'destination_path' {path[:200]!r} must be an absolute path")
    if place.is_dir():
        named = place / time.strftime("qubes-%Y-%m-%dT%H%M%S")
        if named.exists():
            raise QubesError(f"{named}: there is a backup of this very second; try again")
        return named
    if not place.parent.is_dir():
        raise QubesError(f"{place.parent}: no such folder; make it, or mount what it is on")
    if place.exists() and not place.is_file():
        raise QubesError(f"{place}: is no file, such as a disk; name a file on what is mounted of it")
    return place


def _remove(unfinished: Path, failure: BaseException) -> None:
    try:
        unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise FileStays(
            f"{unfinished}: stays there until its disk lets the next backup remove it: {reason(error)}; "
            f"the backup failed: {reason(failure) if isinstance(failure, OSError) else failure}"
        ) from failure


def _take_place(unfinished: Path, place: Path) -> None:
    os.replace(unfinished, place)
    try:
        sync(place.parent)
    except OSError:
        place.unlink(missing_ok=True)
        raise
