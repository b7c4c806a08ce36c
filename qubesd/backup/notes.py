"""Notes about files that are being written, so that what a daemon that was killed left of them is known."""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qubesd.disk import sync, why
from qubesd.errors import QubesError

UNFINISHED = ".unfinished"
"""What the name of such a file ends with; no other is removed."""

_log = logging.getLogger(__name__)
_NOTE = re.compile(r"[0-9a-f]{32}", re.ASCII)


class FileStays(QubesError):
    """A file that is not whole could not be removed."""


class Notes:
    """The notes of one daemon. Every method blocks, and may be called in any thread.

    Args:
        folder: where they are; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._living: dict[str, Path] = {}

    @contextmanager
    def about(self, file: Path) -> Iterator[None]:
        """Inside, the file can be written: there is a note, durably, that it is not whole. It stays where
        ``FileStays`` is raised inside.

        Raises:
            QubesError: it cannot be noted.
        """
        note, stays = self._folder / uuid.uuid4().hex, False
        self._living[note.name] = file
        try:
            self._write(note, file)
            yield
        except FileStays:
            stays = True
            raise
        finally:
            if not stays:
                with suppress(OSError):  # one too many goes later
                    note.unlink()
            del self._living[note.name]

    def clear(self) -> None:
        """Remove the files that nobody writes any more, and say so in the log.

        One whose disk is not there now stays noted.
        """
        for note in self._folder.iterdir() if self._folder.is_dir() else ():
            if _NOTE.fullmatch(note.name) and note.name not in self._living:
                try:
                    self._settle(note)
                except OSError as error:
                    _log.error("what is left of a backup stays: %s: %s", error.filename, why(error))

    def _write(self, note: Path, file: Path) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            note.write_bytes(b"%d %s" % (file.parent.stat().st_dev, os.fsencode(file)))
            sync(note)
            sync(self._folder)
        except OSError as error:
            raise QubesError(f"{self._folder}: cannot be written: {why(error)}") from error

    def _settle(self, note: Path) -> None:
        """Remove what the note is about, and the note, unless the file is on a disk that is away."""
        try:
            device, _, path = note.read_bytes().partition(b" ")
        except FileNotFoundError:  # its backup has ended meanwhile
            return
        file = Path(os.fsdecode(path))
        if file.name.endswith(UNFINISHED):
            if file in tuple(self._living.values()):  # another disk has its place
                return
            if file.is_file():
                file.unlink()
                _log.warning("%s: removed, a backup that was broken off", file)
            elif not file.parent.is_dir() or b"%d" % file.parent.stat().st_dev != device:
                return
        note.unlink(missing_ok=True)
