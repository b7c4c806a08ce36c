"""What running qubes find in their databases, kept in step with the system.

The core and every extension say what a qube is to find as the system is now; what was written before and is
not said any more goes. So nothing has to be told twice, and a daemon that starts again writes what changed
meanwhile. A run begins with an empty database, and ends with its database gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from qubesd.core import base_entries
from qubesd.core.concerned import Concerned
from qubesd.core.extending import Extensions
from qubesd.core.guest_database import GuestDatabase, is_key
from qubesd.core.keeper import Keeper
from qubesd.core.lives import ELSEWHERE
from qubesd.core.network_entries import LONGEST, OWN, part_of
from qubesd.core.page import Page
from qubesd.core.power_events import DomainAppeared, DomainQdbCreate, DomainStopped
from qubesd.core.set_aside import SetAside
from qubesd.core.time_zone import time_zone
from qubesd.core.written import Written
from qubesd.disk import why
from qubesd.errors import QubeError
from qubesd.events import PropertyEvent, QubeChanged, QubeRemoved, SystemChanged, SystemRestored
from qubesd.model.state import Qube

_log = logging.getLogger(__name__)

_MOST = 1024
"""Entries of one qube by one extension; further ones are left out."""
_SHOWN = 8
"""Keys of those, in the log."""
_ASIDE = "~"
"""No qube is called so."""


@dataclass(slots=True, eq=False)
class _Run:
    """``zone`` is the host's time zone as the run began or was first heard of, ``said`` what each extension
    has said last, ``left_out`` the keys of what could not be written, by who said it."""

    page: Page
    zone: str | None
    said: dict[str, Mapping[str, str]] = field(default_factory=dict)
    left_out: Mapping[str, list[str]] = field(default_factory=dict)


class Databases:
    """The databases of one keeper's running qubes, in the folder that has a folder for each."""

    def __init__(self, keeper: Keeper, extensions: Extensions, folder: Path) -> None:
        self._keeper = keeper
        self._extensions = extensions
        self._folder = folder
        self._written = Written(keeper.config.run_dir / "qubes/databases")
        self._aside = SetAside(folder / _ASIDE)
        self._sweeping: asyncio.Task[None] | None = None
        self._unswept = False
        self._runs: dict[str, _Run] = {}
        self._concerned = Concerned(keeper)
        self._stale: set[str] = set()
        self._due: asyncio.Handle | None = None
        self.refreshed: Callable[[str], None] = lambda name: None
        """Told of each running qube that was looked at again."""

    def open(self, running: Iterable[Qube]) -> None:
        """Write for the qubes that run, and follow them and every qube that starts."""
        bus = self._keeper.bus
        bus.subscribe(DomainQdbCreate, lambda event: self._freshen(only=event.subject))
        bus.subscribe(DomainAppeared, lambda event: self._appear(event.subject))
        bus.subscribe(DomainStopped, lambda event: self._end(event.subject))
        bus.subscribe(QubeRemoved, lambda event: self._end(event.qube))
        bus.subscribe(QubeChanged, lambda event: self._spoil(self._concerned.by_change_of(event.subject)))
        bus.subscribe(PropertyEvent, self._told)
        bus.subscribe(SystemRestored, lambda _: self._concerned.learn())
        bus.subscribe(SystemChanged, lambda _: self._spoil(tuple(self._runs)))
        self._concerned.learn()
        runs = {qube.name: qube.uuid for qube in running}
        self._clear_but(runs)
        for name in runs:
            self._appear(name)

    async def close(self) -> None:
        """Follow nothing any more; what was written stays for as long as the qubes run."""
        if self._due is not None:
            self._due.cancel()
        if self._sweeping is not None:
            await self._sweeping

    def of(self, qube: Qube) -> GuestDatabase:
        """The database of a qube."""
        return GuestDatabase(self._folder / qube.name)

    def page(self, name: str) -> Page | None:
        """What is written into the database of the qube; ``None`` where it does not run on this host."""
        run = self._runs.get(name)
        return None if run is None else run.page

    def building_on(self, name: str) -> frozenset[str]:
        """The running qubes that have it as template, netvm however far away, guivm or audiovm."""
        return self._concerned.on(name)

    def begin(self, qube: Qube) -> None:
        """Give a qube whose domain was made, and does nothing yet, a database with all that it is to find.

        Raises:
            QubeError: it cannot be written.
        """
        try:
            self._clear(qube.name)
            self._written.drop(qube.uuid)
            self._turn_to(qube, ())
            self._write_once(qube.name)
            self._write(qube)
        except OSError as error:
            self._complain(qube.name, error)
            raise QubeError(f"the database of qube {qube.name!r} cannot be written: {why(error)}") from error

    def _appear(self, name: str) -> None:
        """The qube runs, and it was not us who started it, or an earlier daemon did."""
        qube = self._keeper.system.qubes.get(name)
        if qube is None or qube.klass in ELSEWHERE:
            return
        record = self._written.load(qube.uuid)
        same_run = record is not None and record.xid == self._keeper.running(name).xid
        self._turn_to(qube, () if record is None else record.keys)
        try:
            if not same_run:
                self._write_once(name)
            self._write(qube)
        except OSError as error:
            self._complain(name, error)

    def _turn_to(self, qube: Qube, left: Iterable[str]) -> None:
        xid = self._keeper.running(qube.name).xid
        page = Page(self.of(qube), self._written, qube.uuid, xid, frozenset(left))
        self._runs[qube.name] = _Run(page, time_zone())

    def _write_once(self, name: str) -> None:
        database = self._runs[name].page.database
        database.write(base_entries.SEED, base_entries.fresh_seed())
        for key in base_entries.LISTS:
            database.touch(key)

    def _told(self, event: PropertyEvent) -> None:
        if event.name == "keyboard_layout":
            self._spoil(tuple(self._runs))  # there may be any number of qubes between this one and theirs
        elif event.subject is not None:
            self._spoil((event.subject,))

    def _spoil(self, names: Iterable[str]) -> None:
        """Look at these again when this turn of the loop is over, and all that changes in it is known."""
        self._stale.update(name for name in names if name in self._runs)
        if self._stale and self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._freshen)

    def _freshen(self, only: str | None = None) -> None:
        """Look at what is stale; at one qube only before others are told of it."""
        if only is None:
            self._due = None
        stale = self._stale if only is None else self._stale & {only}
        self._stale = self._stale - stale
        for name in sorted(stale & self._runs.keys()):
            qube = self._keeper.system.qubes.get(name)
            try:
                if qube is None or qube.uuid != self._runs[name].page.uuid:
                    self._end(name)  # the system went back to one without it
                else:
                    self._write(qube)
            except OSError as error:
                self._complain(name, error)
                self._stale.add(name)  # until the next look
            self.refreshed(name)

    def _write(self, qube: Qube) -> None:
        """Raises ``OSError``."""
        run = self._runs[qube.name]
        said = self._extensions.entries(qube, run.said)
        run.said = {extension: _fitting(entries) for extension, entries in said.items()}
        self._concerned.note(qube)
        # No extension hides what the core says; where two speak of the same key, the later one's counts.
        base = base_entries.entries(self._keeper, qube, run.zone)
        entries = {**_joined(run.said), **base}
        apart = _apart(entries)
        left_out = {f"extension {name!r}": sorted(said[name].keys() - run.said[name].keys()) for name in said}
        left_out["below another entry"] = sorted(entries.keys() - apart.keys())
        if left_out != run.left_out:
            _tell_of(qube.name, left_out)
            run.left_out = left_out
        run.page.put(OWN, apart)

    def _complain(self, name: str, error: OSError) -> None:
        _log.error("%s: the database of qube %r cannot be written: %s", self._folder, name, why(error))

    def _end(self, name: str) -> None:
        """The run is over, or the qube gone: nobody finds anything there any more."""
        run = self._runs.pop(name, None)
        self._concerned.drop(name)
        try:
            self._clear(name)
            if run is not None:
                self._written.drop(run.page.uuid)
        except OSError as error:
            _log.error("the database of qube %r cannot be removed: %s", name, error)

    def _clear_but(self, runs: Mapping[str, str]) -> None:
        """Of all that an earlier daemon left, only the databases of these qubes, with their uuids, count."""
        try:
            self._written.drop_but(runs.values())
            for place in self._folder.iterdir() if self._folder.exists() else ():
                if place.name not in (*runs, _ASIDE):
                    self._aside.take(place)
            self._sweep()
        except OSError as error:
            _log.error("databases of qubes that have stopped are left over: %s", error)

    def _clear(self, name: str) -> None:
        """Raises ``OSError``."""
        if self._aside.take(self._folder / name):
            self._sweep()

    def _sweep(self) -> None:
        """Empty what was taken aside, in a thread: a guest may have filled it."""
        self._unswept = True
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._swept())

    async def _swept(self) -> None:
        try:
            while self._unswept:
                self._unswept = False
                await asyncio.to_thread(self._aside.sweep)
        except OSError as error:
            _log.error("what qubes that have stopped had in their databases is left over: %s", error)


def _joined(said: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {key: value for entries in said.values() for key, value in entries.items()}


def _apart(entries: Mapping[str, str]) -> dict[str, str]:
    """Those that are not below another one, for an entry is a file; the core says none below any."""
    return {key: value for key, value in entries.items() if entries.keys().isdisjoint(_above(key))}


def _above(key: str) -> Iterator[str]:
    words = key.split("/")
    return ("/".join(words[:depth]) for depth in range(2, len(words)))


def _fitting(entries: Mapping[str, str]) -> dict[str, str]:
    """Those that can be written, the first ones by their keys."""
    return {
        key: value
        for key, value in islice(sorted(entries.items()), _MOST)
        if _is_for_extensions(key) and len(value.encode()) <= LONGEST
    }


def _tell_of(name: str, left_out: Mapping[str, list[str]]) -> None:
    """In a line for each that said any, for there may be any number of them."""
    for who, keys in left_out.items():
        if keys:
            shown = ", ".join(repr(key[:96]) for key in keys[:_SHOWN])
            _log.warning("%s: %d entries of qube %r are left out: %s", who, len(keys), name, shown)


def _is_for_extensions(key: str) -> bool:
    """Not what the core writes when it says so, nor the guest's own lists and what is in them."""
    first = "/" + key.split("/")[1] if is_key(key) else base_entries.SEED
    return first not in (base_entries.SEED, *base_entries.LISTS) and part_of(key) == OWN
