"""What running qubes find in their databases because of extensions, kept in step with the system.

An extension says what a qube is to find as the system is now; what was written before and is not said any
more goes. So nothing has to be told twice, and a daemon that starts again writes what changed meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from qubesd.core.extending import Extensions
from qubesd.core.guest_database import GuestDatabase, is_key
from qubesd.core.index import references
from qubesd.core.keeper import Keeper
from qubesd.core.lives import ELSEWHERE, Lives
from qubesd.core.power_events import DomainAppeared, DomainQdbCreate, DomainStart, DomainStopped
from qubesd.events import PropertyEvent, QubeChanged, QubeRemoved, SystemChanged
from qubesd.model.state import Qube

_log = logging.getLogger(__name__)

_MOST = 1024
"""Entries of one qube by one extension; further ones are left out."""
_LONGEST = 3072
"""Bytes of one value, as a QubesDB takes them."""


class Databases:
    """The entries of one keeper's running qubes, in the folder that has a folder for each."""

    def __init__(self, keeper: Keeper, lives: Lives, extensions: Extensions, folder: Path) -> None:
        self._keeper = keeper
        self._lives = lives
        self._extensions = extensions
        self._folder = folder
        self._said: dict[str, dict[str, Mapping[str, str]]] = {}
        """What each extension has said last, by running qube."""
        self._stale: set[str] = set()
        self._due: asyncio.Handle | None = None

    def open(self) -> None:
        """Write for the qubes that run, and follow them and every qube that starts."""
        bus = self._keeper.bus
        bus.subscribe(DomainQdbCreate, lambda event: self._write(event.subject))
        bus.subscribe(DomainAppeared, lambda event: self._write(event.subject))
        bus.subscribe(DomainStopped, lambda event: self._drop(event.subject))
        bus.subscribe(QubeChanged, lambda event: self._spoil(self._around(event.subject)))
        bus.subscribe(PropertyEvent, lambda event: self._spoil(_told_of(event)))
        # Who shows or plays for others has another number with each run, and what is gone names nobody.
        for kind in (DomainStart, DomainStopped, QubeRemoved, SystemChanged):
            bus.subscribe(kind, lambda _: self._spoil(tuple(self._said)))
        for qube in self._lives.active():
            self._write(qube.name)

    def close(self) -> None:
        """Follow nothing any more; what was written stays for as long as the qubes run."""
        if self._due is not None:
            self._due.cancel()

    def of(self, qube: Qube) -> GuestDatabase:
        """The database of a qube."""
        return GuestDatabase(self._folder / qube.name)

    def _around(self, name: str) -> Iterator[str]:
        """The qube and those that it names: what is said of them may build on it."""
        yield name
        qube = self._keeper.system.qubes.get(name)
        if qube is not None:
            yield from references(qube)

    def _spoil(self, names: Iterable[str]) -> None:
        """Look at these again when this turn of the loop is over, and all that changes in it is known."""
        self._stale.update(name for name in names if name in self._said)
        if self._stale and self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._freshen)

    def _freshen(self) -> None:
        self._due = None
        stale, self._stale = self._stale, set()
        for name in sorted(stale):
            self._write(name)

    def _write(self, name: str) -> None:
        qube = self._keeper.system.qubes.get(name)
        if qube is None or qube.klass in ELSEWHERE or self._keeper.running(name).state == "Halted":
            return
        known = self._said.get(name, {})
        said: dict[str, Mapping[str, str]] = {
            extension: dict(_fitting(extension, name, entries))
            for extension, entries in self._extensions.entries(qube, known).items()
        }
        before, now = _joined(known), _joined(said)
        database = self.of(qube)
        self._said.setdefault(name, {})
        try:
            for key in before.keys() - now.keys():
                database.remove(key)
            for key in sorted(now):
                if before.get(key) != now[key]:
                    database.write(key, now[key])
        except OSError as error:
            _log.error("the database of qube %r cannot be written: %s", name, error)
        else:
            self._said[name] = said

    def _drop(self, name: str) -> None:
        """The qube stopped; a next run begins without what this one was told."""
        database = GuestDatabase(self._folder / name)
        try:
            for key in _joined(self._said.pop(name, {})):
                database.remove(key)
        except OSError as error:
            _log.error("the database of qube %r cannot be written: %s", name, error)


def _told_of(event: PropertyEvent) -> tuple[str, ...]:
    """The qubes that an event of a property may be about: its own, and the values that may be names."""
    values = (event.subject, event.oldvalue, getattr(event, "newvalue", None))
    return tuple(value for value in values if value is not None)


def _joined(said: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """All entries of a qube; where two extensions say something of the same key, the later one's counts."""
    return {key: value for entries in said.values() for key, value in entries.items()}


def _fitting(extension: str, name: str, entries: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for number, (key, value) in enumerate(sorted(entries.items())):
        if number >= _MOST or not is_key(key) or len(value.encode()) > _LONGEST:
            _log.warning("extension %r: entry %r of qube %r is left out", extension, key[:96], name)
        else:
            yield key, value
