"""Sockets and their connections by the loop's own callbacks: taken one at a time, read and written as far as
it goes, and never waited for without end.

asyncio's transports would cost a task, three turns of the loop and a large buffer for each connection. Here
most requests are whole by the time they are accepted and are then answered in one go; and since one is
accepted at a time from each socket, callers take turns by construction.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

from broker.sockets import Access, bind, publish

_log = logging.getLogger(__name__)

CHUNK = 16_384
"""Bytes that are read at once."""

_RESPITE = 1.0
"""Seconds until a socket is served again after the machine had no descriptor or memory for a connection."""

_A_WHILE = 15.0
"""Seconds in which nothing is logged twice."""

_MAX_COMPLAINTS = 100


class Served:
    """One connection. ``closed`` is for what a kind of connection has to clear away."""

    __slots__ = ("_descriptor", "_ending", "_loop", "_open", "_reading", "_socket", "_unsent", "since")

    def __init__(self, loop: asyncio.AbstractEventLoop, accepted: socket.socket) -> None:
        self.since = 0.0
        """Since when the peer has been waited for, on the monotonic clock, if it is."""
        self._loop = loop
        self._socket = accepted
        self._descriptor = accepted.fileno()
        self._unsent = bytearray()
        self._open = True
        self._reading = False
        self._ending = False

    def close(self) -> None:
        """Close at once, whatever was still to be read or written; nothing where it is closed."""
        if not self._open:
            return
        self._open = False
        self._stop_reading()
        if self._unsent:
            self._loop.remove_writer(self._descriptor)
        self.closed()
        self._socket.close()

    def closed(self) -> None:
        """Comes once, right before the descriptor goes."""

    def written(self) -> None:
        """Comes when the end was asked for and everything is written."""
        self.close()

    def _read_by(self, read: Callable[[], None]) -> None:
        """Have ``read`` called whenever there is something to read."""
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._descriptor, read)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._descriptor)

    def _write(self, data: bytes) -> None:
        """Send this after all that was to be sent before; nothing where the connection is closed."""
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
            self._loop.add_writer(self._descriptor, self._write_on)

    def _end(self) -> None:
        """Write what is still to be written, and then no more."""
        self._ending = True
        if self._open and not self._unsent:
            self.written()

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
            self._loop.remove_writer(self._descriptor)
            if self._ending:
                self.written()


class Waits:
    """The connections whose peer is waited for, the longest first; who takes too long is closed.

    ``patience`` is in seconds, and is kept to within a sixtieth.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self._loop = loop
        self._patience = patience
        self._waited: dict[Served, None] = {}
        self._sweep = loop.call_later(patience / 60, self._sweep_out)

    def begin(self, connection: Served) -> None:
        """Wait for this peer from now on."""
        connection.since = time.monotonic()
        self._waited.pop(connection, None)
        self._waited[connection] = None

    def end(self, connection: Served) -> None:
        """Wait for it no more; nothing where it was not waited for."""
        self._waited.pop(connection, None)

    def longest(self) -> Served | None:
        """Whoever has been waited for longest."""
        return next(iter(self._waited), None)

    def close(self) -> None:
        self._sweep.cancel()

    def _sweep_out(self) -> None:
        latest = time.monotonic() - self._patience
        late = 0
        while (connection := self.longest()) is not None and connection.since < latest:
            connection.close()
            self.end(connection)
            late += 1
        if late:
            _log.warning(
                "closed %d connections that were waited for longer than %.0f s", late, self._patience
            )
        self._sweep = self._loop.call_later(self._patience / 60, self._sweep_out)


class Listening:
    """Sockets in the file system, and whom their connections are given to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: dict[Path, tuple[socket.socket, Callable[[socket.socket], None]]] = {}
        self._made: set[Path] = set()
        """Paths that go when their sockets do."""
        self._complaints: set[str] = set()
        self._complaints_since = 0.0

    def open(
        self,
        path: Path,
        access: Access,
        take: Callable[[socket.socket], None],
        given: socket.socket | None = None,
    ) -> None:
        """Listen on a socket: the one that was given for the path, which stays when this closes, or one made
        here, whose path appears when it answers. Raises ``OSError`` as ``bind`` does."""
        if given is None:
            listening = bind(path, access)
            publish(path)
            self._made.add(path)
        else:
            listening = given
            listening.setblocking(False)
        self._open[path] = listening, take
        self._loop.add_reader(listening, self._accept, path)

    def shut(self, path: Path) -> None:
        """Take a socket away; the connections that came through it stay."""
        listening, _ = self._open.pop(path)
        self._loop.remove_reader(listening)
        listening.close()
        if path in self._made:
            self._made.remove(path)
            path.unlink(missing_ok=True)

    def close(self) -> None:
        for path in tuple(self._open):
            self.shut(path)

    def complain(self, message: str) -> None:
        """Log this once in a while: who can have it said could have it said a million times."""
        now = time.monotonic()
        if now - self._complaints_since > _A_WHILE:
            self._complaints.clear()
            self._complaints_since = now
        if message not in self._complaints and len(self._complaints) < _MAX_COMPLAINTS:
            self._complaints.add(message)
            _log.warning("%s", message)

    def _accept(self, path: Path) -> None:
        """Take one connection, so that every socket has its turn."""
        listening, take = self._open[path]
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self.complain(f"{path}: no connection can be accepted: {error.strerror}")
            self._loop.remove_reader(listening)
            self._loop.call_later(_RESPITE, self._accept_again, path)
            return
        accepted.setblocking(False)
        take(accepted)

    def _accept_again(self, path: Path) -> None:
        if path in self._open:
            self._loop.add_reader(self._open[path][0], self._accept, path)
