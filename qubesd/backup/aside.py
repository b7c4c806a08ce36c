"""Pieces of an archive that are put aside, in files without a name, so that nothing is left of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from qubesd.disk import why
from qubesd.errors import QubesError


@dataclass(frozen=True, slots=True)
class Aside:
    """A folder for them, which may be on another disk than the archive.

    Attributes:
        piece: what they are to whoever is told that there is no room.
        error: as what that is told.
    """

    folder: Path
    piece: str
    error: type[QubesError] = QubesError

    def file(self) -> IO[bytes]:
        """A new file, gone when it is closed. Raises ``error``."""
        with self.writing():
            return TemporaryFile(dir=self.folder, buffering=0)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say of a failure inside that it is of this disk. Raises ``error``."""
        try:
            yield
        except OSError as error:
            raise self.error(f"{self.folder}: {self.piece} cannot be put aside: {why(error)}") from error
