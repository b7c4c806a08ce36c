"""Which entries of ours running qubes have in their databases, kept in files, so that the next daemon takes
away what is not said any more, and knows a run from the one before it.

What a guest does to its own database changes nothing here. The directory belongs to one boot of the host.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

_UNFINISHED = ".new"


class Record(NamedTuple):
    """``xid`` is the number of the run; ``keys`` may be more than are there, and never fewer."""

    xid: int
    keys: frozenset[str]


class Written:
    """A directory with a file named by the uuid of each qube that runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, uuid: str) -> Record | None:
        """What an earlier daemon left; ``None`` where it left nothing that can be read."""
        try:
            content = json.loads((self._directory / uuid).read_text(encoding="ascii"))
            return Record(int(content["xid"]), frozenset(map(str, content["keys"])))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            _log.warning("%s: what was written into the qube's database is not known: %s", uuid, error)
            return None

    def keep(self, uuid: str, xid: int, keys: Iterable[str]) -> None:
        """These may be there from now on. Raises ``OSError``."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._directory / (uuid + _UNFINISHED)
        unfinished.write_text(json.dumps({"xid": xid, "keys": sorted(keys)}), encoding="ascii")
        unfinished.rename(self._directory / uuid)

    def drop(self, uuid: str) -> None:
        """The run is over. Raises ``OSError``."""
        (self._directory / uuid).unlink(missing_ok=True)

    def drop_but(self, uuids: Collection[str]) -> None:
        """Only these qubes run. Raises ``OSError``."""
        for record in self._directory.iterdir() if self._directory.exists() else ():
            if record.name not in uuids:
                record.unlink()
