"""One connection: one request read whole, answered, closed; or a stream of events.

The sockets are served by callbacks of the loop's own, not by its transports. Most requests are whole by the
time they are accepted and are then answered in one go, and one is accepted at a time from each socket, so
that callers take turns by construction.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from broker.dispatch import Answer, Methods
from broker.identity import DOM0_ACCOUNT, Account, Door, Peer
from broker.streams import Listener
from broker.wire import FramingError, RequestReader, parse_call
from qubesd.model.state import DOM0

if TYPE_CHECKING:
    from broker.serve import House

MAX_BEHIND = 1024 * 1024
"""Bytes of events that wait for a listener; one that is further behind is dropped."""

_CHUNK = 16_384
_READS = 2
"""How often a connection is read in one turn: enough for a short request and its end."""


class Connection:
    """A connection that was accepted through a door."""

    __slots__ = (
        "_descriptor",
        "_ending",
        "_house",
        "_listener",
        "_methods",
        "_open",
        "_peer",
        "_reader",
        "_reading",
        "_socket",
        "_unsent",
        "counted",
        "door",
        "since",
    )

    def __init__(self, house: House, door: Door, methods: Methods, accepted: socket.socket) -> None:
        self.door = door
        self.counted: Account | None = None
        """Whom it is counted with; ``None`` where it was refused."""
        self.since: float | None = None
        """Since when the client has been waited for, on the monotonic clock; ``None`` while it waits for
        us."""
        self._house = house
        self._methods = methods
        self._socket = accepted
        self._descriptor = accepted.fileno()
        self._reader = RequestReader()
        self._unsent = bytearray()
        self._listener: Listener | None = None
        self._open = True
        self._reading = False
        self._ending = False
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
            self.since = time.monotonic()
            self._read()
        else:
            self.close()

    def close(self) -> None:
        """Close at once, whatever was still to be read or written; nothing where it is closed."""
        if not self._open:
            return
        self._open = False
        self._stop_reading()
        if self._unsent:
            self._house.loop.remove_writer(self._descriptor)
        if self._listener is not None:
            self._listener.close()
            self._house.hang_ups.forget(self._descriptor)
        self._house.leave(self)
        self._socket.close()

    def _read(self) -> None:
        """Take what has come of the request, and answer it when that was all."""
        try:
            for _ in range(_READS):
                untrusted_data = self._socket.recv(_CHUNK)
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
        if not self._reading:
            self._reading = True
            self._house.loop.add_reader(self._descriptor, self._read)

    def _count_source(self) -> bool:
        """Count a call that dom0 passes on for somebody with that caller's own, as soon as it is known."""
        untrusted_source = self._reader.source()
        return untrusted_source in (None, DOM0) or self._house.count(self, str(untrusted_source))

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._house.loop.remove_reader(self._descriptor)

    def _whole(self) -> None:
        self._stop_reading()
        try:
            call = parse_call(self._reader.end())
        except FramingError:
            self.close()
            return
        self.since = None
        try:
            answer = self._house.dispatcher.take(call, self.door, self._peer, self._methods)
        except BaseException:
            self.close()
            raise
        if isinstance(answer, bytes | Listener):
            self._give(answer)
        else:
            self._house.run(self._finish(answer))

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
            self.since = time.monotonic()
            self._write(answer)
            self._end()

    def _tell(self, message: bytes) -> None:
        """Send an event."""
        self._write(message)
        if len(self._unsent) > MAX_BEHIND:
            self._house.complain(f"dropped a listener of {self.counted!r} that does not read its events")
            self.close()

    def _end(self) -> None:
        """Close when everything is written."""
        self._ending = True
        if not self._unsent:
            self.close()

    def _write(self, data: bytes) -> None:
        if not self._open:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._house.loop.add_writer(self._descriptor, self._write_on)

    def _write_on(self) -> None:
        """The peer takes more."""
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._house.loop.remove_writer(self._descriptor)
            if self._ending:
                self.close()
