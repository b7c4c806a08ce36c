"""One thing that was looked at on this host: how it is, and what to do."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """``about`` is one word for what was looked at; ``do`` the next step, empty where all is well."""

    level: Level
    about: str
    what: str
    do: str = ""


def ok(about: str, what: str) -> Finding:
    return Finding(Level.OK, about, what)


def warning(about: str, what: str, do: str) -> Finding:
    """It works, but not all of it, or not for long."""
    return Finding(Level.WARNING, about, what, do)


def error(about: str, what: str, do: str) -> Finding:
    """The daemon does not start, or does not do what it is there for."""
    return Finding(Level.ERROR, about, what, do)
