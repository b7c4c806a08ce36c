"""The one call that ``qrexec-policy-daemon`` answers: what it decides by, asked by dom0's tools.

``qubesd`` has an internal socket for such calls; a daemon without a core has this one, which speaks the same
way and nothing else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from broker.deciding.status import STATUS
from broker.serving import CHUNK, Listening, Served, Waits
from broker.sockets import Access
from broker.wire import FramingError, encode_content, parse_call
from qubesd.api.method import Call
from qubesd.model.state import DOM0

PATIENCE = 10.0
"""Seconds that a connection may last, from its first byte to the last one taken."""

MAX_CONNECTIONS = 16
MAX_REQUEST = 4_096
"""Bytes."""

_QUESTION = Call(STATUS, "", DOM0, DOM0, b"")


class StatusSocket:
    """Answers with what ``tell`` says. ``open`` it once, ``close`` it in any case."""

    def __init__(self, path: Path, tell: Callable[[], str]) -> None:
        self.path = path
        self.tell = tell
        self.loop = asyncio.get_running_loop()
        self.listening = Listening(self.loop)
        self.waits = Waits(self.loop, PATIENCE)
        self.connections: set[_Connection] = set()

    def open(self, access: Access) -> None:
        """Listen. Raises ``OSError`` as ``bind`` does."""
        self.listening.open(self.path, access, self._take)

    def close(self) -> None:
        """Take the socket away, if it was opened, and drop who is connected."""
        self.listening.close()
        self.waits.close()
        for connection in tuple(self.connections):
            connection.close()

    def _take(self, accepted: socket.socket) -> None:
        if len(self.connections) >= MAX_CONNECTIONS:
            accepted.close()
            return
        connection = _Connection(self, accepted)
        self.connections.add(connection)
        connection.begin()


class _Connection(Served):
    __slots__ = ("_owner", "_untrusted_request")

    def __init__(self, owner: StatusSocket, accepted: socket.socket) -> None:
        super().__init__(owner.loop, accepted)
        self._owner = owner
        self._untrusted_request = bytearray()

    def begin(self) -> None:
        self._owner.waits.begin(self)
        self._read_by(self._read)

    def closed(self) -> None:
        self._owner.waits.end(self)
        self._owner.connections.discard(self)

    def _read(self) -> None:
        try:
            untrusted_data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._untrusted_request += untrusted_data
        if len(self._untrusted_request) > MAX_REQUEST:
            self.close()
        elif not untrusted_data:
            self._stop_reading()
            self._answer()

    def _answer(self) -> None:
        try:
            call = parse_call(bytes(self._untrusted_request))
        except FramingError as error:
            self._owner.listening.complain(f"closed without an answer: {error}")
        else:
            if call == _QUESTION:
                self._write(encode_content(self._owner.tell()))
            else:
                self._owner.listening.complain(f"closed without an answer: not a call of {STATUS}")
        self._end()
