"""A socket that answers one short request of each connection with one text, and closes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Protocol

from broker.serving import CHUNK, Listening, Served, Waits
from broker.sockets import Access

PATIENCE = 10.0
"""Seconds that a connection may last, from its first byte to the last one taken."""

MAX_CONNECTIONS = 16
MAX_REQUEST = 4_096
"""Bytes."""


class Speaker(Protocol):
    """What is said there."""

    def is_whole(self, untrusted_request: bytes) -> bool:
        """Whether that is a whole request already; at its end every request is."""

    def answer(self, untrusted_request: bytes) -> bytes:
        """What is answered, nothing for a connection that is just closed. ``ValueError`` says why it is."""


class ShortAnswers:
    """``open`` it once, ``close`` it in any case."""

    def __init__(self, path: Path, speaker: Speaker) -> None:
        self.path = path
        self.speaker = speaker
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

    def __init__(self, owner: ShortAnswers, accepted: socket.socket) -> None:
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
        elif not untrusted_data or self._owner.speaker.is_whole(bytes(self._untrusted_request)):
            self._stop_reading()
            self._answer()

    def _answer(self) -> None:
        try:
            self._write(self._owner.speaker.answer(bytes(self._untrusted_request)))
        except ValueError as error:
            self._owner.listening.complain(f"closed without an answer: {error}")
        self._end()
