"""A socket for each qube: ``<uuid>.sock`` is there as long as its qube is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from broker.contract import Methods
from broker.identity import QubeDoor
from broker.serve import House
from broker.sockets import Access, answers
from qubesd.events import QubeChanged, SystemRestored
from qubesd.model.state import Klass, Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core

_log = logging.getLogger(__name__)

_NO_CHANNEL = frozenset({Klass.ADMIN, Klass.REMOTE})
"""dom0 has its own socket; a RemoteVM runs elsewhere and calls through its relay."""


class Channels:
    """Keeps the sockets in one folder in step with the core's qubes.

    Args:
        owner: the uid of the process that carries the qubes' bytes, which owns the sockets; ``None`` for the
            daemon's own.
    """

    def __init__(
        self, core: Core, house: House, methods: Methods, folder: Path, own_uid: int, owner: int | None
    ) -> None:
        self._core = core
        self._house = house
        self._methods = methods
        self._folder = folder
        self._own_uid = own_uid
        self._owner = owner
        self._uuids: dict[str, str] = {}
        core.bus.subscribe(QubeChanged, self._qube_changed)
        core.bus.subscribe(SystemRestored, self._restored)

    def open(self) -> None:
        """Open a socket for each qube and take away those that a killed daemon left."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for path in self._folder.glob("*.sock"):
            if path.stem not in self._core.system.by_uuid and path.is_socket() and not answers(path):
                path.unlink()
        for name in self._core.system.qubes:
            self._follow(name)

    def _qube_changed(self, event: QubeChanged) -> None:
        assert event.subject is not None
        self._follow(event.subject)

    def _restored(self, event: SystemRestored) -> None:
        for name in {*self._uuids, *self._core.system.qubes}:
            self._follow(name)

    def _follow(self, name: str) -> None:
        """Have the socket there that the qube of this name has now, and no other."""
        uuid = self._uuid(self._core.system.qubes.get(name))
        had = self._uuids.get(name)
        if uuid == had:
            return
        if had is not None:
            del self._uuids[name]
            self._house.shut(self._path(had))
        if uuid is not None:
            self._open(name, uuid)

    def _open(self, name: str, uuid: str) -> None:
        door = QubeDoor(uuid, self._own_uid, self._owner)
        try:
            self._house.open(self._path(uuid), door, self._methods, Access(0o600, self._owner))
        except OSError as error:
            _log.error("%s: no channel for %r: %s", self._path(uuid), name, error.strerror)
        else:
            self._uuids[name] = uuid

    def _path(self, uuid: str) -> Path:
        return self._folder / f"{uuid}.sock"

    def _uuid(self, qube: Qube | None) -> str | None:
        return None if qube is None or qube.klass in _NO_CHANNEL else qube.uuid
