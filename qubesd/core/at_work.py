"""Which extension is at work, kept where a daemon that ends meanwhile leaves it to the next one.

Some code cannot be broken off, and some ends the process it runs in. Either way the next daemon knows whose
it was.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = 256
"""Bytes of a name. One that is longer is not known again."""


class AtWork:
    """One name at a time, in a file of this boot of the host. To note it is to write to memory."""

    def __init__(self, run_dir: Path) -> None:
        """Raises ``OSError``."""
        file = run_dir / "qubes/extension-at-work"
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            os.pwrite(descriptor, bytes(max(0, _SIZE - size)), size)  # there is room for what is noted
            self._page = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)

    def take(self) -> str:
        """Who was at work when an earlier daemon ended, empty where nobody was; it is forgotten with this."""
        left = self._page[:].rstrip(b"\0").decode(errors="replace")
        self._page[:] = bytes(_SIZE)
        return left

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """It is at work inside; whoever called it is so again afterwards."""
        before = self._page[:]
        self._page[:] = name.encode(errors="replace")[:_SIZE].ljust(_SIZE, b"\0")
        try:
            yield
        finally:
            self._page[:] = before
