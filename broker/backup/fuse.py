"""What keeps little from becoming much: a bound on what comes of an archive."""

from __future__ import annotations

from qubesd.errors import QubesError

_RATIO = 1000
_FREE = 1 << 30
"""So many bytes that are not zeros may come of anything; of more, a thousandth must have been read."""
_ZEROS = bytes(1 << 20)


class Fuse:
    """Blows where far more comes of an archive than is in it.

    Zeros do not count: they take no place where they go, and the emptiest image is full of them.
    """

    def __init__(self, name: str, read: int) -> None:
        """``read`` is the bytes that the file ``name`` takes in the archive."""
        self._name = name
        self._left = _FREE + _RATIO * read

    def carry(self, piece: bytes) -> None:
        """Take note of this; ``QubesError`` where it is too much."""
        if piece != _ZEROS[: len(piece)]:
            self._left -= len(piece)
            if self._left < 0:
                raise QubesError(f"{self._name!r} unpacks to more than {_RATIO} times what it is; a bomb")
