"""The sockets that calls come through, and what bounds whoever calls.

A caller may hold only so many connections, each of at most one request of 64 KiB; a request has to be whole
and an answer be taken in time; a listener has to take its events. What is over a bound is closed without a
byte, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from broker.connection import Connection
from broker.contract import Methods
from broker.dispatch import Dispatcher
from broker.hangup import HangUps
from broker.identity import DOM0_ACCOUNT, Account, Door
from broker.serving import Listening, Waits
from broker.sockets import Access
from qubesd.core.core import Core

MAX_CONNECTIONS = 64
"""Open connections of one caller, streams included."""

MAX_TRUSTED = 1024
"""The same for dom0 as a whole, with those connections whose header has not said yet who calls."""

PATIENCE = 15 * 60.0
"""Seconds in which a request has to be whole, and an answer has to be taken. A client that keeps its
connection open and says nothing (stock lets it, without any bound) has this long."""


class House:
    """All connections of one daemon, and the sockets that they come through.

    ``patience`` is in seconds, see ``PATIENCE``.
    """

    def __init__(self, core: Core, dispatcher: Dispatcher, patience: float = PATIENCE) -> None:
        self.core = core
        self.dispatcher = dispatcher
        self.loop = asyncio.get_running_loop()
        self.hang_ups = HangUps(self.loop)
        self._listening = Listening(self.loop)
        self.complain = self._listening.complain
        self.waits = Waits(self.loop, patience)
        self._connections: dict[Connection, None] = {}
        self._counts: dict[Account, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._doors: dict[Path, Door] = {}

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    @property
    def running(self) -> int:
        """Calls that wait for something."""
        return len(self._tasks)

    def open(self, path: Path, door: Door, methods: Methods, access: Access) -> None:
        """Listen on a socket, whose path appears when it answers. Raises ``OSError`` as ``bind`` does."""
        self._listening.open(path, access, partial(self._take, door, methods))
        self._doors[path] = door

    def shut(self, path: Path) -> None:
        """Take a socket away and drop the connections that came through it."""
        self._listening.shut(path)
        door = self._doors.pop(path)
        for connection in [one for one in self._connections if one.door is door]:
            connection.close()

    async def close(self, grace: float) -> None:
        """Take no more calls, and give those that run ``grace`` seconds to end and be answered."""
        self._listening.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.waits.close()
        for connection in tuple(self._connections):
            connection.close()
        self.hang_ups.close()

    def count(self, connection: Connection, account: Account) -> bool:
        """Count a connection with those of this account and no other; false where that has enough."""
        if self._counts.get(account, 0) >= (MAX_TRUSTED if account is DOM0_ACCOUNT else MAX_CONNECTIONS):
            self.complain(f"refused a connection: {account!r} has too many")
            return False
        if connection.counted is not None:
            self.leave(connection)
        self._counts[account] = self._counts.get(account, 0) + 1
        self._connections[connection] = None
        connection.counted = account
        return True

    def leave(self, connection: Connection) -> None:
        """Count it no more; nothing where it was not counted."""
        account = connection.counted
        if account is None:
            return
        connection.counted = None
        del self._connections[connection]
        self._counts[account] -= 1
        if not self._counts[account]:
            del self._counts[account]

    def run(self, call: Coroutine[Any, Any, None]) -> None:
        """Have a call that waits run to its end."""
        task = self.loop.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, door: Door, methods: Methods, accepted: socket.socket) -> None:
        Connection(self, door, methods, accepted).begin()
