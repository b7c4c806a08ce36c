"""One change of the policy as the history tells of it: who, when, what and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LATEST = 1e12
"""Seconds of the epoch that no entry reaches."""

MAX_WHY = 1_000
"""Characters of a comment."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change: a qube or ``dom0``, and the user of dom0 where one is known."""

    qube: str
    user: str = ""

    def __str__(self) -> str:
        return f"{self.qube} ({self.user})" if self.user else self.qube


NOBODY = Author("")
"""Who makes a change that was not asked for here: an editor, a package."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of a change and the tokens of its content; ``None`` where there was no file, or is none."""

    file: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One change.

    Attributes:
        number: from 1 upwards; one that is forgotten is not used again.
        time: in seconds of the epoch; of a change by ``NOBODY``, when it was noticed.
        files: those that it changed, in the order in which that was done.
        why: what its author says of it; may be empty.
        tree: the token of the whole policy after it, of which the history has the content.
        held: what this entry and those before it weigh together.
        frame: the file that this entry tells of alone, where it came with the backup of one frame; else
            empty.
    """

    number: int
    time: float
    author: Author
    files: tuple[FileChange, ...]
    why: str
    tree: str
    held: int
    frame: str = ""

    def line(self) -> bytes:
        document = {
            "number": self.number,
            "time": self.time,
            "qube": self.author.qube,
            "user": self.author.user,
            "why": self.why,
            "files": [[one.file, one.before, one.after] for one in self.files],
            "tree": self.tree,
            "held": self.held,
            "frame": self.frame,
        }
        return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"

    @property
    def subject(self) -> str:
        """The one file that it is about; empty where there are several. Whoever floods the history with edits
        of a file has entries about this file forgotten, not those of others."""
        return self.files[0].file if len(self.files) == 1 else ""


def entry_of(line: bytes) -> Entry:
    """The entry that a line tells of. Raises ``ValueError``."""
    document = json.loads(line)
    if not isinstance(document, dict):
        raise ValueError("no object")
    number, moment, held = document.get("number"), document.get("time"), document.get("held")
    if not isinstance(number, int) or not isinstance(held, int) or not isinstance(moment, int | float):
        raise ValueError("a number is missing")
    if not 0 <= moment < LATEST:
        raise ValueError("no such time")
    return Entry(
        number,
        float(moment),
        Author(_text(document, "qube"), _text(document, "user")),
        tuple(map(_file_change, document.get("files", ()))),
        _text(document, "why"),
        _text(document, "tree"),
        held,
        _text(document, "frame"),
    )


def _text(document: Mapping[str, Any], key: str) -> str:
    text = document.get(key, "")
    if not isinstance(text, str):
        raise ValueError(f"{key} is no text")
    return text


def _file_change(row: object) -> FileChange:
    if not isinstance(row, list) or len(row) != 3 or not isinstance(row[0], str):
        raise ValueError("a file is missing")
    if any(token is not None and not isinstance(token, str) for token in row[1:]):
        raise ValueError("a token is no text")
    return FileChange(*row)
