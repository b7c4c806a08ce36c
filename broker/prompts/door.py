"""The agent's socket: one message a connection, read whole within bounds, answered and closed."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from broker.hangup import HangUps
from broker.prompts.desk import Desk, Ticket
from broker.prompts.messages import MAX_MESSAGE, MessageError, Note, answer, parse
from broker.serving import CHUNK, Listening, Served, Waits
from broker.sockets import Access

PATIENCE = 10.0
"""Seconds in which a message has to be whole, and an answer has to be taken."""

MAX_CONNECTIONS = 512
"""More than questions can wait. When there are as many, a new one takes the place of that whose peer has been
waited for longest."""

_READS = 4
"""How often a connection is read in one turn."""


class Door:
    """The socket and its connections; ``patience`` is in seconds, see ``PATIENCE``."""

    def __init__(
        self, desk: Desk, patience: float = PATIENCE, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        self.desk = desk
        self.loop = asyncio.get_running_loop()
        self.waits = Waits(self.loop, patience)
        self.hangups = HangUps(self.loop)
        self.connections: set[_Connection] = set()
        self._listening = Listening(self.loop)
        self._max_connections = max_connections

    def open(self, path: Path, access: Access) -> None:
        """Listen; the path appears when the agent answers. Raises ``OSError`` as ``bind`` does."""
        self._listening.open(path, access, self._take)

    def close(self) -> None:
        """Take no more messages; who waits for an answer gets none, which denies."""
        self._listening.close()
        for connection in tuple(self.connections):
            connection.close()
        self.waits.close()
        self.hangups.close()

    def complain(self, message: str) -> None:
        """Log this once in a while."""
        self._listening.complain(message)

    def _take(self, accepted: socket.socket) -> None:
        connection = _Connection(self, accepted)
        if len(self.connections) >= self._max_connections:
            self.complain(f"{self._max_connections} connections are open: closed one")
            silent = self.waits.longest()
            if silent is None:
                connection.close()
                return
            silent.close()
        self.connections.add(connection)
        connection.begin()


class _Connection(Served):
    __slots__ = ("_door", "_ticket", "_untrusted")

    def __init__(self, door: Door, accepted: socket.socket) -> None:
        super().__init__(door.loop, accepted)
        self._door = door
        self._untrusted = bytearray()
        self._ticket: Ticket | None = None
        """Of the question, while its answer is waited for."""

    def begin(self) -> None:
        self._door.waits.begin(self)
        self._read_by(self._read)

    def closed(self) -> None:
        self._door.waits.end(self)
        self._door.connections.discard(self)
        if self._ticket is not None:
            self._door.hangups.forget(self._descriptor)
            ticket, self._ticket = self._ticket, None
            self._door.desk.withdraw(ticket)

    def _read(self) -> None:
        """Take what has come; the message is whole when its sender has said that nothing more comes."""
        try:
            for _ in range(_READS):
                untrusted_data = self._socket.recv(CHUNK)
                if not untrusted_data and not self._untrusted:
                    self.close()  # who only looks whether somebody is there
                    return
                if not untrusted_data:
                    self._heard()
                    return
                self._untrusted += untrusted_data
                if len(self._untrusted) > MAX_MESSAGE:
                    self._refuse(f"more than {MAX_MESSAGE} bytes")
                    return
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _heard(self) -> None:
        self._stop_reading()
        try:
            message = parse(bytes(self._untrusted))
        except MessageError as error:
            self._refuse(str(error))
            return
        self._untrusted.clear()
        self._door.waits.end(self)
        if isinstance(message, Note):
            self._door.desk.tell(message)
            self.close()
            return
        self._ticket = Ticket(message, self._reply)
        self._door.hangups.watch(self._descriptor, self.close)
        self._door.desk.ask(self._ticket)

    def _reply(self, target: str | None) -> None:
        self._ticket = None
        self._door.hangups.forget(self._descriptor)
        self._door.waits.begin(self)
        self._write(answer(target))
        self._end()

    def _refuse(self, why: str) -> None:
        self._door.complain(f"closed without an answer: {why}")
        self.close()
