"""Colour for a terminal, and none for anything else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Colours:
    """Marks text for a terminal; gives it back as it is where ``enabled`` is false."""

    enabled: bool

    @classmethod
    def of(cls, stream: TextIO) -> Colours:
        """Colours where the stream is a terminal that has some, unless ``NO_COLOR`` is set (no-color.org)."""
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
        return cls(stream.isatty() and not plain)

    def _mark(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.enabled else text

    def title(self, text: str) -> str:
        return self._mark("1", text)

    def good(self, text: str) -> str:
        return self._mark("32", text)

    def bad(self, text: str) -> str:
        return self._mark("31", text)

    def odd(self, text: str) -> str:
        return self._mark("33", text)

    def faint(self, text: str) -> str:
        return self._mark("2", text)
