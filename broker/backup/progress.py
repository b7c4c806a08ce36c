"""How far something is, on a terminal, where it takes longer than a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

_PAUSE = 1.0
"""Seconds before the first report, and between two."""


class Progress:
    """Counts bytes of ``total``, which may be a guess, and says so on a terminal; ``stream`` is standard
    error unless given."""

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self._what = what
        self._total = total
        self._stream = stream or sys.stderr
        self._done = 0
        self._told = time.monotonic()
        self._shown = False

    def count(self, read: int) -> None:
        self._done += read
        if time.monotonic() - self._told >= _PAUSE and self._stream.isatty():
            self._told, self._shown = time.monotonic(), True
            percent = min(99, 100 * self._done // self._total) if self._total else 0
            self._stream.write(f"\r{self._what}: {percent}% ({self._done >> 20} MiB)\x1b[K")
            self._stream.flush()

    def end(self) -> None:
        """Take the report away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def counted(pieces: Iterable[tuple[int, bytes]], count: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    """The pieces of a file, of whose lengths ``count`` is told as they are taken."""
    for place, piece in pieces:
        count(len(piece))
        yield place, piece
