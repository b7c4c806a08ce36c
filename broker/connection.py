"""One connection: one request read whole, answered, closed; or a stream of events.

Most requests are whole by the time they are accepted, and are then answered in one go.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from broker.call_id import CALL, begin
from broker.contract import Methods
from broker.dispatch import Answer, Dispatcher
from broker.hangup import HangUps
from broker.identity import DOM0_ACCOUNT, Account, Door, Peer
from broker.serving import CHUNK, Served, Waits
from broker.streams import Listener
from broker.wire import FramingError, RequestReader, parse_call
from qubesd.core.core import Core
from qubesd.model.state import DOM0

MAX_BEHIND = 1024 * 1024
"""Bytes of events that wait for a listener; one that is further behind is dropped."""

_READS = 2
"""How often a connection is read in one turn: enough for a short request and its end."""


class Host(Protocol):
    """What a connection needs of the house that it came to."""

    core: Core
    dispatcher: Dispatcher
    loop: asyncio.AbstractEventLoop
    hang_ups: HangUps
    waits: Waits

    def count(self, connection: Connection, account: Account) -> bool:
        """Count it with those of this account and no other; false where that has enough."""

    def leave(self, connection: Connection) -> None:
        """Count it no more; nothing where it was not counted."""

    @property
    def complain(self) -> Callable[[str], None]:
        """Logs a message once in a while."""

    def run(self, call: Coroutine[Any, Any, None]) -> None:
        """Have a call that waits run to its end."""


class Connection(Served):
    """A connection that was accepted through a door."""

    __slots__ = ("_house", "_listener", "_methods", "_peer", "_reader", "counted", "door")

    def __init__(self, house: Host, door: Door, methods: Methods, accepted: socket.socket) -> None:
        super().__init__(house.loop, accepted)
        self.door = door
        self.counted: Account | None = None
        """Whom it is counted with; ``None`` where it was refused."""
        self._house = house
        self._methods = methods
        self._reader = RequestReader()
        self._listener: Listener | None = None
        self._peer: Peer

    def begin(self) -> None:
        """Let the peer in, or close without a byte; then take what has come already."""
        try:
            self._peer = Peer(self._socket)
            admitted = self.door.admits(self._peer, self._house.core.system)
        except OSError as error:
            self._house.complain(f"refused a connection that the kernel says nothing of: {error.strerror}")
            self.close()
            return
        if not admitted:
            self._house.complain(f"refused a connection of uid {self._peer.uid}")
            self.close()
        elif self._house.count(self, self.door.account(self._peer)):
            self._house.waits.begin(self)
            self._read()
        else:
            self.close()

    def closed(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._house.hang_ups.forget(self._descriptor)
        self._house.waits.end(self)
        self._house.leave(self)

    def _read(self) -> None:
        """Take what has come of the request, and answer it when that was all."""
        try:
            for _ in range(_READS):
                untrusted_data = self._socket.recv(CHUNK)
                if not untrusted_data:
                    self._whole()
                    return
                self._reader.feed(untrusted_data)
                if self.counted is DOM0_ACCOUNT and not self._count_source():
                    self.close()
                    return
        except BlockingIOError:
            pass
        except (OSError, FramingError):
            self.close()
            return
        self._read_by(self._read)

    def _count_source(self) -> bool:
        """Count a call that dom0 passes on for somebody with that caller's own, as soon as it is known."""
        untrusted_source = self._reader.source()
        return untrusted_source in (None, DOM0) or self._house.count(self, str(untrusted_source))

    def _whole(self) -> None:
        self._stop_reading()
        try:
            call = parse_call(self._reader.end())
        except FramingError:
            self.close()
            return
        self._house.waits.end(self)
        number = begin()
        try:
            answer = self._house.dispatcher.take(call, self.door, self._peer, self._methods)
            if isinstance(answer, bytes | Listener):
                self._give(answer)
            else:
                self._house.run(self._finish(answer))
        except BaseException:
            self.close()
            raise
        finally:
            CALL.reset(number)

    async def _finish(self, running: Awaitable[Answer]) -> None:
        """A call runs to its end even when its caller has gone: what it does must not be left half done."""
        answer = await running
        if self._open:
            self._give(answer)
        elif isinstance(answer, Listener):
            answer.close()

    def _give(self, answer: Answer) -> None:
        if isinstance(answer, Listener):
            self._listener = answer
            self._house.hang_ups.watch(self._descriptor, self.close)
            answer.attach(self._tell, self._end)
        else:
            self._house.waits.begin(self)
            self._write(answer)
            self._end()

    def _tell(self, message: bytes) -> None:
        """Send an event."""
        self._write(message)
        if len(self._unsent) > MAX_BEHIND:
            self._house.complain(f"dropped a listener of {self.counted!r} that does not read its events")
            self.close()
