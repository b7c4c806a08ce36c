"""What a guest asks of its own qube, read from its database (``spec/wire-protocol.md`` 8).

Everything that is read here is the guest's. It is bounded and checked as a whole: where anything is out of
bounds, nothing of it counts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from qubesd.core.databases import Databases
from qubesd.core.draft import Draft
from qubesd.core.guest_database import GuestDatabase
from qubesd.core.guest_events import FeaturesRequest
from qubesd.core.keeper import Keeper
from qubesd.core.turns import Turns
from qubesd.errors import ProtocolError, QubeNotRunning
from qubesd.model.names import is_feature_name
from qubesd.model.state import Klass, Qube

_REQUESTS = "/features-request"
_TOOLS = "/qubes-tools"
_OF_TOOLS = ("qrexec", "gui", "gui-emulated", "default-user", "os")

_MOST = 256
"""Features that a guest may ask for at once."""
_LONGEST_NAME = 96
_LONGEST = 512
"""Bytes of one value."""
_MOST_BYTES = 16 * 1024
"""Of all names and values: an event carries them."""
_REQUESTED = re.compile(rb"[A-Za-z0-9\-.,_= ]*")
_OF_TOOL = re.compile(rb"[A-Za-z0-9]*")


class Requests:
    """The requests of one keeper's guests."""

    def __init__(self, keeper: Keeper, databases: Databases, turns: Turns) -> None:
        self._keeper = keeper
        self._turns = turns
        self._databases = databases

    async def features(self, qube: Qube) -> None:
        """Let extensions take over what the guest asks for below ``/features-request``.

        Raises:
            QubeNotRunning: it cannot have asked.
            ProtocolError: a value has other letters than it may have, or there is too much of it.
        """
        await self._take(qube, _requested)

    async def tools(self, qube: Qube) -> None:
        """The same of the few values that older agents leave below ``/qubes-tools``."""
        await self._take(qube, _of_tools)

    async def _take(self, qube: Qube, read: Callable[[GuestDatabase], dict[str, str]]) -> None:
        async with self._turns.of(qube):
            self._check_runs(qube)
            untrusted_features = await asyncio.to_thread(read, self._databases.of(qube))
            self._check_runs(qube)
            draft = Draft(self._keeper)
            draft.tell(FeaturesRequest(qube.name, untrusted_features))
            draft.apply()
            await self._keeper.durable()

    def _check_runs(self, qube: Qube) -> None:
        """Also after the database was read: by then it may be another run's, or another qube's of the
        name."""
        qube = self._keeper.current(qube)
        elsewhere = qube.klass in (Klass.ADMIN, Klass.REMOTE)
        if elsewhere or self._keeper.running(qube.name).state == "Halted":
            raise QubeNotRunning(f"qube {qube.name!r} has no database: it does not run here")


def _requested(database: GuestDatabase) -> dict[str, str]:
    untrusted_names = database.names(_REQUESTS, _MOST + 1)
    if len(untrusted_names) > _MOST:
        raise ProtocolError(f"more than {_MOST} features are requested at once")
    # A name that no feature can have stands for none.
    names = [name for name in untrusted_names if len(name) <= _LONGEST_NAME and is_feature_name(name)]
    found = {name: _value(database, f"{_REQUESTS}/{name}", _REQUESTED) for name in names}
    features = {name: value for name, value in found.items() if value is not None}
    if sum(len(name) + len(value) for name, value in features.items()) > _MOST_BYTES:
        raise ProtocolError(f"the requested features have more than {_MOST_BYTES} bytes")
    return features


def _of_tools(database: GuestDatabase) -> dict[str, str]:
    found = {name: _value(database, f"{_TOOLS}/{name}", _OF_TOOL) for name in _OF_TOOLS}
    return {name: value for name, value in found.items() if value is not None}


def _value(database: GuestDatabase, key: str, form: re.Pattern[bytes]) -> str | None:
    """The text of a value, ``None`` where there is none; ``ProtocolError`` where it is of no good form."""
    untrusted_value = database.read(key, _LONGEST + 1)
    if untrusted_value is None:
        return None
    if len(untrusted_value) > _LONGEST:
        raise ProtocolError(f"a requested value has more than {_LONGEST} bytes")
    if form.fullmatch(untrusted_value) is None:
        raise ProtocolError("a requested value has letters that none may have")
    return untrusted_value.decode("ascii")
