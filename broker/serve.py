"""Connections: one request each, read whole, answered, closed; and the sockets that they come through.

A caller may hold only so many connections, each of at most one request of 64 KiB; a request has to be whole
and an answer be taken in time; a listener has to take its events. What is over a bound is closed without a
byte, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from broker.dispatch import Answer, Dispatcher, Methods
from broker.hangup import HangUps
from broker.identity import DOM0_ACCOUNT, Account, Door, Peer
from broker.sockets import BACKLOG, OWN_CLEANUP, Access, bind, publish
from broker.streams import Listener
from broker.wire import MAX_REQUEST, FramingError, RequestReader, parse_call
from qubesd.model.state import DOM0

if TYPE_CHECKING:
    from qubesd.core.core import Core

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Open connections of one caller, streams included."""

MAX_TRUSTED = 1024
"""The same for dom0 as a whole, with those connections whose header has not said yet who calls."""

MAX_BEHIND = 1024 * 1024
"""Bytes of events that wait for a listener; one that is further behind is dropped."""

PATIENCE = 15 * 60.0
"""Seconds in which a request has to be whole, and an answer has to be taken. A client that keeps its
connection open and says nothing (stock lets it, without any bound) has this long."""

_MAX_COMPLAINTS = 100


class Connection(asyncio.BufferedProtocol):
    """One request through one door."""

    __slots__ = (
        "_house",
        "_listener",
        "_methods",
        "_peer",
        "_reader",
        "_transport",
        "counted",
        "door",
        "since",
    )

    def __init__(self, house: House, door: Door, methods: Methods) -> None:
        self.door = door
        self.counted: Account | None = None
        """Whom it is counted with; ``None`` where it was refused."""
        self.since: float | None = None
        """Since when the client has been waited for, on the monotonic clock; ``None`` while it waits for
        us."""
        self._house = house
        self._methods = methods
        self._reader = RequestReader()
        self._listener: Listener | None = None
        self._transport: asyncio.Transport
        self._peer: Peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        try:
            self._peer = Peer(transport.get_extra_info("socket"))
            admitted = self.door.admits(self._peer, self._house.core.system)
        except OSError as error:
            self._house.complain(f"refused a connection that the kernel says nothing of: {error.strerror}")
            self._transport.abort()
            return
        if not admitted:
            self._house.complain(f"refused a connection of uid {self._peer.uid}")
            self._transport.abort()
        elif self._house.count(self, self.door.account(self._peer)):
            self.since = time.monotonic()
        else:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes are put: one place for all connections, emptied at once."""
        return self._house.buffer

    def buffer_updated(self, length: int) -> None:
        try:
            self._reader.feed(memoryview(self._house.buffer)[:length])
        except FramingError:
            self._transport.abort()
            return
        if self.counted is DOM0_ACCOUNT:
            untrusted_source = self._reader.source()
            if untrusted_source not in (None, DOM0) and not self._house.count(self, untrusted_source):
                self._transport.abort()

    def eof_received(self) -> bool:
        """The request is whole. Answers whether there is more to come than what was written here."""
        if self.counted is None:
            return False
        try:
            call = parse_call(self._reader.end())
        except FramingError:
            return False
        answer = self._house.dispatcher.take(call, self.door, self._peer, self._methods)
        if isinstance(answer, bytes):
            self._transport.write(answer)
            # The client need not wait for its answer's end until this side has tidied up.
            self._transport.write_eof()
            return False
        self.since = None
        if isinstance(answer, Listener):
            self._listen(answer)
        else:
            self._house.run(self._finish(answer))
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._house.leave(self)
        if self._listener is not None:
            self._listener.close()
            self._house.hang_ups.forget(self._transport.get_extra_info("socket").fileno())

    def drop(self) -> None:
        """Close at once, whatever was still to be written."""
        if self._listener is not None:
            self._listener.close()
        self._transport.abort()

    async def _finish(self, running: Coroutine[Any, Any, Answer]) -> None:
        """A call runs to its end even when its caller has gone: what it does must not be left half done."""
        answer = await running
        if self._transport.is_closing():
            if isinstance(answer, Listener):
                answer.close()
        elif isinstance(answer, Listener):
            self._listen(answer)
        else:
            self.since = time.monotonic()
            self._transport.write(answer)
            self._transport.close()

    def _listen(self, listener: Listener) -> None:
        self._listener = listener
        self._house.hang_ups.watch(self._transport.get_extra_info("socket").fileno(), self.drop)
        listener.attach(self._send, self._transport.close)

    def _send(self, message: bytes) -> None:
        self._transport.write(message)
        if self._transport.get_write_buffer_size() > MAX_BEHIND:
            self._house.complain(f"dropped a listener of {self.counted!r} that does not read its events")
            self.drop()


class House:
    """All connections of one daemon, and the sockets that they come through.

    ``patience`` is in seconds, see ``PATIENCE``.
    """

    def __init__(self, core: Core, dispatcher: Dispatcher, patience: float = PATIENCE) -> None:
        self.core = core
        self.dispatcher = dispatcher
        self._patience = patience
        self.buffer = bytearray(MAX_REQUEST + 1)
        self._loop = asyncio.get_running_loop()
        self.hang_ups = HangUps(self._loop)
        self._connections: dict[Connection, None] = {}
        self._counts: dict[Account, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[Path, tuple[asyncio.Server, Door]] = {}
        self._complaints: set[str] = set()
        self._sweep = self._loop.call_later(patience / 60, self._sweep_out)

    async def open(self, path: Path, door: Door, methods: Methods, access: Access) -> None:
        """Listen on a socket, whose path appears when it answers. Raises ``OSError`` as ``bind`` does."""
        listening = bind(path, access)
        server = await self._loop.create_unix_server(
            lambda: Connection(self, door, methods), sock=listening, backlog=BACKLOG, **OWN_CLEANUP
        )
        publish(path)
        self._open[path] = server, door

    def shut(self, path: Path) -> None:
        """Take a socket away and drop the connections that came through it."""
        server, door = self._open.pop(path)
        server.close()
        path.unlink(missing_ok=True)
        for connection in [one for one in self._connections if one.door is door]:
            connection.drop()

    async def close(self, grace: float) -> None:
        """Take no more calls, and give those that run ``grace`` seconds to end and be answered."""
        for server, _ in self._open.values():
            server.close()
        for path in self._open:
            path.unlink(missing_ok=True)
        self._open.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._sweep.cancel()
        for connection in tuple(self._connections):
            connection.drop()
        # The transports tell of their end in the next turn of the loop.
        while self._connections:
            await asyncio.sleep(0)
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
        task = self._loop.create_task(call)
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
            connection.drop()
        self._sweep = self._loop.call_later(self._patience / 60, self._sweep_out)
