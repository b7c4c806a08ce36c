"""A tar archive as a stream of blocks of 512 bytes, of which no more is taken than was asked for."""

from __future__ import annotations

from typing import IO

from broker.backup.fuse import Fuse
from qubesd.errors import QubesError

BLOCK = 512
_PIECE = 1 << 20
MOST_DIGITS = 16
_MOST_PADDING = 1 << 20
"""Zeros behind the archive; GNU tar writes 20 blocks at once."""


class Blocks:
    """Reads one inner archive.

    Args:
        name: the file that it is in the outer one, which errors name.
        stored: the bytes that it takes there.
    """

    def __init__(self, stream: IO[bytes], name: str, stored: int) -> None:
        self.name = name
        self._stream = stream
        self._fuse = Fuse(name, stored)

    def exactly(self, size: int) -> bytes:
        """So many bytes, which the caller has bounded."""
        pieces = []
        while size:
            piece = self._stream.read(min(size, _PIECE))
            if not piece:
                raise QubesError(f"{self.name!r} is cut short")
            self._fuse.carry(piece)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def end(self) -> None:
        """The rest of the archive, whose first empty block was read."""
        padding = BLOCK
        while piece := self._stream.read(_PIECE):
            padding += len(piece)
            if padding > _MOST_PADDING or piece.strip(b"\0"):
                raise QubesError(f"{self.name!r} is followed by something else")
        if padding < 2 * BLOCK:
            raise QubesError(f"{self.name!r} is cut short")

    def number(self, digits: bytes) -> int:
        """A number that is written in decimal digits."""
        if not digits.isdigit() or len(digits) > MOST_DIGITS:
            raise QubesError(f"{self.name!r}: expected a number, found {digits[:32]!r}")
        return int(digits)
