"""When the devices that a running qube announces change: the folder that stands for its QubesDB is watched.

As in a QubesDB, it is the list that is watched and not what it says of each device: a device comes or goes in
it, or whoever writes there touches the folder of the list when all of it is written. So a qube costs a few
watches, however long its list is. A watch ends with its first news, and what a qube does until somebody looks
and watches again costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from broker.inotify import Inotify, pyinotify
from qubesd.core.exposure import ANNOUNCED, key_of

_log = logging.getLogger(__name__)

_APPEARING = pyinotify.IN_CREATE | pyinotify.IN_MOVED_TO
_LEAVING = pyinotify.IN_DELETE_SELF | pyinotify.IN_MOVE_SELF
_ONCE = pyinotify.IN_ONLYDIR | pyinotify.IN_ONESHOT
_DATABASES = _APPEARING | pyinotify.IN_ONLYDIR
_DATABASE = _APPEARING | _LEAVING | _ONCE
_LIST = _DATABASE | pyinotify.IN_DELETE | pyinotify.IN_MOVED_FROM | pyinotify.IN_ATTRIB

_BLIND = 5.0
"""Seconds until a list that the kernel does not let us watch counts as changed."""


@dataclass(slots=True, eq=False)
class _Watched:
    """One qube whose next change is waited for."""

    name: str
    changed: Callable[[], None]
    numbers: list[int] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


@asynccontextmanager
async def announcements_in(folder: Path) -> AsyncIterator[Announcements]:
    """Watches on the databases in this folder, which is made where it is missing.

    Raises:
        OSError: it cannot be made, or there is no more room for an inotify descriptor.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inotify = Inotify()
    loop = asyncio.get_running_loop()
    try:
        announcements = Announcements(folder, inotify)
        loop.add_reader(inotify.descriptor, announcements.look)
        try:
            yield announcements
        finally:
            loop.remove_reader(inotify.descriptor)
            announcements.close()
    finally:
        inotify.close()


class Announcements:
    """``announcements_in`` makes it."""

    def __init__(self, folder: Path, inotify: Inotify) -> None:
        self._folder = folder
        self._inotify = inotify
        self._all = inotify.add(str(folder), _DATABASES)
        self._watched: dict[str, _Watched] = {}
        self._by_number: dict[int, _Watched] = {}
        self._was_blind = False

    @property
    def watches(self) -> int:
        """How many of the kernel's watches the qubes have now."""
        return len(self._by_number)

    def watch(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` once, at the next change of the qube's lists, or after a few seconds where that
        cannot be seen. Returns how not to; a qube has one such watch."""
        watched = self._watched[name] = _Watched(name, changed)
        database = self._folder / name
        places = [(database, _DATABASE), *((database / key_of(devclass), _LIST) for devclass in ANNOUNCED)]
        # From the outside in: what is missing is told of by what is around it.
        blind = [place for place, mask in places if not self._add(watched, place, mask) and place.exists()]
        if blind or self._all is None:
            if not self._was_blind:
                _log.warning("%s: cannot be watched, and is looked at every %.0f s", database, _BLIND)
            self._was_blind = True
            watched.timer = asyncio.get_running_loop().call_later(_BLIND, self._fire, watched)
        return lambda: self._end(watched)

    def look(self) -> None:
        """Take note of what the kernel tells."""
        for number, mask, name in self._inotify.news():
            if mask & pyinotify.IN_Q_OVERFLOW:
                for watched in list(self._watched.values()):
                    self._fire(watched)
            else:
                known = self._watched.get(name) if number == self._all else self._by_number.get(number)
                if known is not None:
                    self._fire(known)

    def close(self) -> None:
        for watched in list(self._watched.values()):
            self._end(watched)

    def _add(self, watched: _Watched, place: Path, mask: int) -> bool:
        number = self._inotify.add(str(place), mask)
        if number is not None:
            watched.numbers.append(number)
            self._by_number[number] = watched
        return number is not None

    def _fire(self, watched: _Watched) -> None:
        self._end(watched)
        watched.changed()

    def _end(self, watched: _Watched) -> None:
        if self._watched.get(watched.name) is watched:
            del self._watched[watched.name]
        for number in watched.numbers:
            del self._by_number[number]
            self._inotify.remove(number)
        watched.numbers.clear()
        if watched.timer is not None:
            watched.timer.cancel()
