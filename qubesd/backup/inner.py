"""The inner layer: a tar archive of one file, written to a descriptor (``spec/backup.md`` 3.4).

An image is kept sparse, in the form that GNU tar calls 1.0: a list of where its data are, then the data.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

from qubesd.backup.processes import Processes, write_all

BLOCK = 512
_PIECE = 1 << 20
_MOST_EXTENTS = 1 << 16
"""Pieces that an image may be in; of more, near ones are taken together with the hole between them."""

Extents = list[tuple[int, int]]
"""Offset and length of each piece of data, in bytes and in order."""


def write_file(name: str, content: bytes, target: int) -> None:
    """A file as GNU tar has it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o660
    with io.BytesIO() as made:
        with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(info, io.BytesIO(content))
        write_all(target, made.getvalue())


def write_image(
    name: str, image: Path, target: int, processes: Processes, count: Callable[[int], None]
) -> None:
    """An image, which must stay as it is meanwhile; ``count`` is told of the bytes that were read.

    Raises:
        OSError: it cannot be read, or not be written.
        BackupCancelled: it is not wanted any more.
    """
    source = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.lseek(source, 0, os.SEEK_END)
        extents = find_extents(source, size)
        listed = _listed(extents, size)
        data = sum(length for _, length in extents)
        write_all(target, _head(name, size, len(listed) + data))
        write_all(target, listed)
        for start, length in extents:
            _copy(source, start, length, target, processes, count)
        write_all(target, bytes(-data % BLOCK + 2 * BLOCK))
    finally:
        os.close(source)


def find_extents(source: int, size: int) -> Extents:
    """Where the data of an image are. A device knows of no holes and is one piece."""
    if not stat.S_ISREG(os.fstat(source).st_mode):
        return [(0, size)] if size else []
    extents: Extents = []
    place, near = 0, 0
    while place < size:
        try:
            start = os.lseek(source, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                break
            raise
        place = min(os.lseek(source, start, os.SEEK_HOLE), size)
        extents.append((start, place - start))
        if len(extents) >= _MOST_EXTENTS:
            near = max(2 * near, 1 << 16)
            extents = _together(extents, near)
    return extents


def _together(extents: Extents, near: int) -> Extents:
    """With those taken as one that have less than ``near`` bytes of hole between them."""
    joined = [extents[0]]
    for start, length in extents[1:]:
        first, so_far = joined[-1]
        if start - (first + so_far) < near:
            joined[-1] = (first, start + length - first)
        else:
            joined.append((start, length))
    return joined


def _listed(extents: Extents, size: int) -> bytes:
    """The list as text; its last entry reaches the end of the file."""
    if not extents or sum(extents[-1]) < size:
        extents = [*extents, (size, 0)]
    numbers = [len(extents), *(number for extent in extents for number in extent)]
    text = "".join(f"{number}\n" for number in numbers).encode("ascii")
    return text + bytes(-len(text) % BLOCK)


def _head(name: str, size: int, stored: int) -> bytes:
    """The header of a member that has ``stored`` bytes and stands for a file of ``size``."""
    folder, base = os.path.split(name)
    info = tarfile.TarInfo(f"{folder}/GNUSparseFile.{os.getpid()}/{base}")
    info.size, info.mode = stored, 0o660
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _copy(
    source: int, start: int, length: int, target: int, processes: Processes, count: Callable[[int], None]
) -> None:
    end = start + length
    while start < end:
        processes.check()
        piece = os.pread(source, min(_PIECE, end - start), start)
        if not piece:
            raise OSError(errno.EIO, "the image became shorter while it was read")
        write_all(target, piece)
        start += len(piece)
        count(len(piece))
