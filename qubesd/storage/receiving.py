"""Taking an image from a stream (``spec/admin-calls.md`` 6.7): exactly so many bytes, holes kept.

The target is fresh: it reads as zeros wherever nothing was written. So blocks of zeros are not written, and
an image that is mostly empty stays small.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from qubesd.disk import why
from qubesd.errors import StorageError

_PIECE = 1 << 20
"""Bytes held at once."""
_BLOCK = 1 << 16
"""Zeros are looked for in blocks of so many bytes."""
_ZEROS = bytes(_BLOCK)


def receive(source: int, target: Path, size: int) -> None:
    """Write what the descriptor ``source`` has, durably.

    Raises:
        StorageError: it ended before ``size`` bytes, has more, or the target cannot be written.
    """
    copied = 0
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"{target}: cannot be opened: {why(error)}") from error
    try:
        buffer = memoryview(bytearray(_PIECE))
        while copied < size:
            read = _fill(source, buffer[: min(_PIECE, size - copied)])
            if not read:
                raise StorageError(f"copied {copied} bytes, expected {size}")
            write(writer, buffer[:read], copied)
            copied += read
        if os.read(source, 1):
            raise StorageError(f"too much data: expected {size} bytes and there are more")
        os.fsync(writer)
    except OSError as error:
        raise StorageError(f"{target}: copied {copied} bytes, expected {size}: {why(error)}") from error
    finally:
        os.close(writer)


def _fill(source: int, buffer: memoryview) -> int:
    """Read until the buffer is full or there is no more; how many bytes."""
    filled = 0
    while filled < len(buffer):
        read = os.readv(source, [buffer[filled:]])
        if not read:
            break
        filled += read
    return filled


def write(writer: int, data: memoryview, place: int) -> None:
    """Write these bytes to their place in the image, but for the blocks of zeros, in as few pieces as those
    leave."""
    start = 0
    for block in range(0, len(data), _BLOCK):
        end = min(block + _BLOCK, len(data))
        if data[block:end] == _ZEROS[: end - block]:
            _write_all(writer, data[start:block], place + start)
            start = end
    _write_all(writer, data[start:], place + start)


def _write_all(writer: int, data: memoryview, place: int) -> None:
    while data:
        written = os.pwrite(writer, data, place)
        if not written:
            raise OSError(errno.ENOSPC, "nothing more can be written")
        data, place = data[written:], place + written
