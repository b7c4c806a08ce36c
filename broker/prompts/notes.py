"""Notifications that have still to be shown: of each source one of each kind, so that nobody hides another's,
nor behind a flood of denials that something was allowed."""

from __future__ import annotations

from typing import NamedTuple

from broker.prompts.messages import Note

MOST = 256
"""Notes that are kept; what comes when there are as many is not shown."""


class Told(NamedTuple):
    """A note, and how many others of its source and kind came before it could be shown."""

    note: Note
    others: int


class Notes:
    """What is to be shown next, the oldest first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[tuple[str, str], Told] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, note: Note) -> None:
        key = (note.source, note.resolution)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept[key] = kept._replace(others=kept.others + 1)
        elif len(self._kept) < self._most:
            self._kept[key] = Told(note, 0)

    def take(self) -> Told | None:
        """The next one; ``None`` where there is nothing to tell."""
        key = next(iter(self._kept), None)
        return None if key is None else self._kept.pop(key)
