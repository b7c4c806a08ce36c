"""The sockets that calls come through, and what bounds whoever calls.

A caller may hold only so many connections, each of at most one request of 64 KiB; a request has to be whole
and an answer be taken in time; a listener has to take its events. What is over a bound is closed without a
byte, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.connection import Connection
from broker.dispatch import Dispatcher, Methods
from broker.hangup import HangUps
from broker.identity import DOM0_ACCOUNT, Account, Door
from broker.sockets import Access, bind, publish

if TYPE_CHECKING:
    from qubesd.core.core import Core

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Open connections of one caller, streams included."""

MAX_TRUSTED = 1024
"""The same for dom0 as a whole, with those connections whose header has not said yet who calls."""

PATIENCE = 15 * 60.0
"""Seconds in which a request has to be whole, and an answer has to be taken. A client that keeps its
connection open and says nothing (stock lets it, without any bound) has this long."""

_RESPITE = 1.0
"""Seconds until a socket is served again after the machine had no descriptor or memory for a connection."""

_MAX_COMPLAINTS = 100


class House:
    """All connections of one daemon, and the sockets that they come through.

    ``patience`` is in seconds, see ``PATIENCE``.
    """

    def __init__(self, core: Core, dispatcher: Dispatcher, patience: float = PATIENCE) -> None:
        self.core = core
        self.dispatcher = dispatcher
        self._patience = patience
        self.loop = asyncio.get_running_loop()
        self.hang_ups = HangUps(self.loop)
        self._connections: dict[Connection, None] = {}
        self._counts: dict[Account, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[Path, tuple[socket.socket, Door]] = {}
        self._complaints: set[str] = set()
        self._sweep = self.loop.call_later(patience / 60, self._sweep_out)

    def open(self, path: Path, door: Door, methods: Methods, access: Access) -> None:
        """Listen on a socket, whose path appears when it answers. Raises ``OSError`` as ``bind`` does."""
        listening = bind(path, access)
        publish(path)
        self._open[path] = listening, door
        self.loop.add_reader(listening, self._accept, path, methods)

    def shut(self, path: Path) -> None:
        """Take a socket away and drop the connections that came through it."""
        door = self._take_away(path)
        for connection in [one for one in self._connections if one.door is door]:
            connection.close()

    async def close(self, grace: float) -> None:
        """Take no more calls, and give those that run ``grace`` seconds to end and be answered."""
        for path in tuple(self._open):
            self._take_away(path)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._sweep.cancel()
        for connection in tuple(self._connections):
            connection.close()
        self.hang_ups.close()

    def _take_away(self, path: Path) -> Door:
        listening, door = self._open.pop(path)
        self.loop.remove_reader(listening)
        listening.close()
        path.unlink(missing_ok=True)
        return door

    def _accept(self, path: Path, methods: Methods) -> None:
        """Take one connection, so that every socket has its turn."""
        listening, door = self._open[path]
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self.complain(f"{path}: no connection can be accepted: {error.strerror}")
            self.loop.remove_reader(listening)
            self.loop.call_later(_RESPITE, self._accept_again, path, methods)
            return
        accepted.setblocking(False)
        Connection(self, door, methods, accepted).begin()

    def _accept_again(self, path: Path, methods: Methods) -> None:
        if path in self._open:
            self.loop.add_reader(self._open[path][0], self._accept, path, methods)

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

    def complain(self, message: str) -> None:
        """Log this once in a while: who can have it said could have it said a million times."""
        if message not in self._complaints and len(self._complaints) < _MAX_COMPLAINTS:
            self._complaints.add(message)
            _log.warning("%s", message)

    def _sweep_out(self) -> None:
        """Drop whoever was waited for too long."""
        self._complaints.clear()
        latest = time.monotonic() - self._patience
        for connection in [one for one in self._connections if one.since is not None and one.since < latest]:
            connection.close()
        self._sweep = self.loop.call_later(self._patience / 60, self._sweep_out)
