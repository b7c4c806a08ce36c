"""Copying images: shared extents where the file system has them, else the data without the holes."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

from qubesd.disk import why
from qubesd.errors import StorageError
from qubesd.model.state import VolumeConfig
from qubesd.storage.pool import Pool

_FICLONE = 0x40049409
"""``ioctl_ficlone(2)``; Python's ``fcntl`` names it from 3.12 on."""
_NOT_HERE = frozenset(
    (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.EBADF)
)
"""What a file system answers that cannot share extents between these two files."""
_STEP = 128 << 20
"""Bytes asked of the kernel at once."""
_PIECE = 1 << 20
"""Bytes held in memory where the kernel does not copy by itself."""
_ZEROS = bytes(_PIECE)


def copy(source: Path, target: Path) -> None:
    """Copy the content of an image to an image that is empty, or to a device that is empty and large enough.

    Whoever keeps the copy syncs it.

    Raises:
        OSError: it could not be read or written; what was written so far is in ``target``.
    """
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not share(reader, writer):
                _copy_data(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def share(reader: int, writer: int) -> bool:
    """Have one file hold the other's extents; whether that can be done here. Both are descriptors."""
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True


def clone(
    pool: Pool,
    volume: VolumeConfig,
    source_pool: Pool,
    source: VolumeConfig,
    begin: Callable[[int], Path] | None = None,
) -> None:
    """``Pool.clone`` for any two drivers, by an export here and an import there.

    ``begin`` makes the empty image of so many bytes; ``None`` for ``Pool.begin_import``.
    """
    size = source_pool.size(source)
    with source_pool.export(source) as exported:
        target = pool.begin_import(volume, size) if begin is None else begin(size)
        try:
            copy(exported, target)
        except BaseException as error:
            pool.end_import(volume, False)
            if isinstance(error, OSError):
                raise StorageError(
                    f"{target}: volume {volume.vid!r} is not replaced, for copying failed: {why(error)}"
                ) from error
            raise
    pool.end_import(volume, True)


def _copy_data(reader: int, writer: int) -> None:
    """Copy what is not a hole; a source that knows of no holes is one piece of data."""
    end = os.lseek(reader, 0, os.SEEK_END)
    if stat.S_ISREG(os.fstat(writer).st_mode) and os.fstat(writer).st_size < end:
        os.ftruncate(writer, end)
    place = 0
    while place < end:
        try:
            data = os.lseek(reader, place, os.SEEK_DATA)
            place = min(os.lseek(reader, data, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            if error.errno != errno.EINVAL:
                raise
            data, place = place, end  # a device
        _copy_range(reader, writer, data, place)


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        try:
            done = os.copy_file_range(reader, writer, min(_STEP, end - start), start, start)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            done = 0
        if done == 0:  # some file systems cannot, some devices answer that they are at their end
            _copy_bytes(reader, writer, start, end)
            return
        start += done


def _copy_bytes(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        piece = os.pread(reader, min(_PIECE, end - start), start)
        if not piece:
            raise OSError(errno.EIO, "the image became shorter while it was copied")
        # A device tells of no holes; what is empty in it needs no place in the copy either.
        written = len(piece) if piece == _ZEROS[: len(piece)] else 0
        while written < len(piece):
            written += os.pwrite(writer, piece[written:], start + written)
        start += len(piece)
