"""Which qubes a daemon knew to run, kept in files, so that the next one learns which stopped between the two.

A stop is dealt with exactly once (``spec/domains.md`` 6.3), also where no daemon was there to hear of it. The
directory belongs to one boot of the host; nothing is synced, a crash of the host stops every qube anyway.
"""

from __future__ import annotations

import logging
from pathlib import Path

_log = logging.getLogger(__name__)


class Marks:
    """A directory with an empty file named by the uuid of each qube that runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def is_first(self) -> bool:
        """Whether no daemon has run since the host booted."""
        return not self._directory.exists()

    def load(self) -> frozenset[str]:
        """The uuids that an earlier daemon left."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return frozenset(mark.name for mark in self._directory.iterdir())

    def put(self, uuid: str) -> None:
        """The qube runs. A qube may do so without its mark, which matters only if this daemon dies."""
        try:
            (self._directory / uuid).touch()
        except OSError as error:
            _log.warning("%s: %s", self._directory, error)

    def drop(self, uuid: str) -> None:
        """The qube's stop has been dealt with."""
        try:
            (self._directory / uuid).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s: %s", self._directory, error)
