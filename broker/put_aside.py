"""The files of a log that are full or old: numbered, compressed, and gone when there are too many or they are
too old."""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
import threading
from pathlib import Path

_log = logging.getLogger(__name__)

DAY = 24 * 60 * 60
_PACKED = ".gz"
_UNFINISHED = ".new"


class PutAside:
    """What was put aside of the log at ``path``: ``.1.gz`` is the newest, ``.2.gz`` the one before.

    Args:
        kept: how many are kept.
        days: after so many days without a record in it one goes; 0 for never.
    """

    def __init__(self, path: Path, kept: int, days: int) -> None:
        self._path = path
        self._kept = kept
        self._days = days
        self._aside = re.compile(rf"{re.escape(path.name)}\.([1-9][0-9]{{0,8}})(?:{re.escape(_PACKED)})?")
        self._packing: threading.Thread | None = None
        for left in path.parent.glob(f"{path.name}.*{_UNFINISHED}"):
            left.unlink()

    def take(self) -> None:
        """Put the log aside, whose name is free then. Raises ``OSError`` where it stays in its place."""
        self.wait()
        for number in range(self._kept, 0, -1):
            for packed in ("", _PACKED):
                older = self._numbered(number, packed)
                if number == self._kept:
                    older.unlink(missing_ok=True)
                elif older.exists():
                    older.replace(self._numbered(number + 1, packed))
        self._path.replace(self._numbered(1))

    def pack(self) -> None:
        """Compress what was put aside last, in a thread, when nobody writes there any more. It stays as it is
        where that fails."""
        self._packing = threading.Thread(target=self._pack, args=(self._numbered(1),), name="audit")
        self._packing.start()

    def expire(self, now: float) -> None:
        """Remove those that are too old at this time, in seconds of the epoch, and those that are too many,
        which a configuration that kept more has left. Raises ``OSError``."""
        for file in self._path.parent.iterdir():
            found = self._aside.fullmatch(file.name)
            if found is None:
                continue
            too_old = self._days and file.stat().st_mtime < now - self._days * DAY
            if too_old or int(found[1]) > self._kept:
                file.unlink()

    def wait(self) -> None:
        """Until nothing is being compressed."""
        if self._packing is not None:
            self._packing.join()
            self._packing = None

    def _numbered(self, number: int, packed: str = "") -> Path:
        return self._path.with_name(f"{self._path.name}.{number}{packed}")

    def _pack(self, plain: Path) -> None:
        packed = plain.with_name(plain.name + _PACKED)
        unfinished = packed.with_name(packed.name + _UNFINISHED)
        try:
            with plain.open("rb") as source:
                found = os.fstat(source.fileno())
                with unfinished.open("wb") as target:
                    os.fchmod(target.fileno(), found.st_mode & 0o777)
                    with gzip.GzipFile("", "wb", 6, target, found.st_mtime) as compressed:
                        shutil.copyfileobj(source, compressed, 1 << 20)
                    target.flush()
                    os.fsync(target.fileno())
            os.utime(unfinished, ns=(found.st_atime_ns, found.st_mtime_ns))
            unfinished.replace(packed)
            plain.unlink()
        except OSError as error:
            _log.warning("%s: stays as it is, uncompressed: %s", plain, error.strerror)
            unfinished.unlink(missing_ok=True)
