"""A process as a person is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """By its id; ``name`` is what was started."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name}, process {self.pid}"


def named(pid: int) -> Process:
    """The process of that id, seen as far as this user may see it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = [b"a program that cannot be seen"]
    shown = [word.decode("ascii", "backslashreplace") for word in words if not word.startswith(b"-")]
    return Process(pid, Path(shown[-1] if len(shown) == 1 else " ".join(shown[:2])).name or "a program")
