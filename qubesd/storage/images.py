"""Image files below a pool's directory, each change of a name being one step that lasts.

Something new is made under a name ending in ``~`` and takes its real name when it is whole and on the disk,
so a name never stands for half an image. What a daemon that was killed left is known by that ending.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qubesd.disk import sync, why
from qubesd.errors import StorageError

UNFINISHED = "~"
BLOCK = 512
"""The unit of ``st_blocks``, in bytes."""
_LARGEST = 1 << 50
"""Bytes; an image larger than a pebibyte is a mistake."""
_VID = re.compile(r"[A-Za-z0-9_.-]{1,128}(/[A-Za-z0-9_.-]{1,128}){0,7}", re.ASCII)


@contextmanager
def reporting(what: str) -> Iterator[None]:
    """Say of an error of the operating system what it kept us from doing, as a ``StorageError``.

    What is done inside leaves things as they were where it fails.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}, nothing was changed: {why(error)}") from error


def below(directory: Path, vid: str) -> Path:
    """The place of a vid in a pool's directory; ``StorageError`` for one that could lead out of it."""
    if not _VID.fullmatch(vid) or any(set(step) == {"."} for step in vid.split("/")):
        raise StorageError(f"volume {vid[:64]!r}: no such name can be in this pool; mend it in qubes.xml")
    return directory / vid


def beside(base: Path, ending: str) -> Path:
    """The file of that ending."""
    return base.with_name(base.name + ending)


def make(place: Path, fill: Callable[[Path], None]) -> None:
    """A file that ``fill`` completes, given an empty one; in the place of what had its name."""
    unfinished = beside(place, UNFINISHED)
    try:
        unfinished.touch(mode=0o660)
        with open(unfinished, "r+b") as file:
            os.ftruncate(file.fileno(), 0)
        fill(unfinished)
        sync(unfinished)
        rename(unfinished, place)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def make_empty(place: Path, size: int) -> None:
    """A file of ``size`` bytes that holds nothing yet."""
    checked = check_size(size)
    make(place, lambda file: os.truncate(file, checked))


def resize(file: Path, size: int) -> None:
    """Give an image this size, durably; where that fails it has the size that it had."""
    before = file.stat().st_size
    os.truncate(file, size)
    try:
        sync(file)
    except OSError:
        os.truncate(file, before)
        raise


def check_size(size: int) -> int:
    if not 0 <= size <= _LARGEST:
        raise StorageError(f"no image can have {size} bytes")
    return size


def link(file: Path, name: Path) -> None:
    """One more name for the file, whatever the name stood for."""
    unfinished = beside(name, UNFINISHED)
    unfinished.unlink(missing_ok=True)
    os.link(file, unfinished)
    rename(unfinished, name)
    # Where both names were one file already the kernel renames nothing.
    unfinished.unlink(missing_ok=True)


def rename(old: Path, new: Path) -> None:
    os.replace(old, new)
    sync(new.parent)


def remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """The folder with those above it, each on the disk before something is in it."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(mode=0o770, exist_ok=True)
        sync(new.parent)


def remove_lastingly(*files: Path) -> None:
    """Remove these files of one folder, and the folder with the last of all that was in it."""
    folder = files[0].parent
    there = [file for file in files if file.exists()]
    remove(*there)
    try:
        folder.rmdir()
        sync(folder.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if there:
            sync(folder)


def used(file: Path) -> int:
    """Bytes that the file takes on the disk; none where there is none."""
    try:
        return file.stat().st_blocks * BLOCK
    except FileNotFoundError:
        return 0


def holds_data(file: Path, place: int) -> bool:
    """Whether there is anything but a hole from this byte on."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.lseek(descriptor, place, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def space(directory: Path) -> tuple[int, int]:
    """Size of the file system and what of it is taken, in bytes."""
    found = os.statvfs(directory)
    return found.f_frsize * found.f_blocks, found.f_frsize * (found.f_blocks - found.f_bfree)
