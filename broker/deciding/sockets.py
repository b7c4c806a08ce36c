"""The sockets that are asked for decisions: connections of one question each, read whole, answered, closed.

Only dom0 can connect, but what it asks comes from the qubes. A question has to be whole in time; what is over
a bound is closed without a byte, and nobody else notices.

The C qrexec daemon sends its request in one piece, closes nothing, and reads to the end: at most 4,095 bytes,
for as long as that takes. A reset loses it even a good answer, and a socket that is closed with bytes unread
resets its peer. So who sent more than a request is answered, told that nothing more will come, and read on to
the end of what it sends, within bounds.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from broker.activation import NONE_GIVEN, Given
from broker.call_id import CALL, begin
from broker.deciding.answering import DENY, Answer, Answering
from broker.deciding.questions import EvaluationReader, LinesReader, QuestionError, Reader
from broker.serving import CHUNK, Listening, Served, Waits
from broker.sockets import Access

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 8_192
"""Open connections to one socket. When there are as many, a new one takes the place of that whose peer
has been waited for longest, which is not the qrexec daemon, since it sends at once, but may be a qube that
keeps thousands of evaluations open. Questions that wait for the user keep their places."""

PATIENCE = 60.0
"""Seconds in which a question has to be whole, and its answer has to be taken."""

MAX_UNREAD = 4 * 1024 * 1024
"""Bytes after a request that are read and dropped."""

_READS = 4
"""How often a connection is read in one turn."""

Readers = Callable[[], Reader]

evaluations: Readers = partial(EvaluationReader, "policy.EvalSimple", of_screen=False)
screen_evaluations: Readers = partial(EvaluationReader, "policy.EvalGUI", of_screen=True)


class PolicySockets:
    """The policy sockets of one daemon and their connections.

    ``patience`` is in seconds, see ``PATIENCE``; ``max_connections`` is for each socket.
    """

    def __init__(
        self, answering: Answering, patience: float = PATIENCE, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        self.answering = answering
        self.answers = {"allow": 0, "deny": 0, "none": 0}
        """Answers so far, those to evaluations among them."""
        self.silent = 0
        """Connections so far that ended without a byte, as of who looks whether somebody answers."""
        self.loop = asyncio.get_running_loop()
        self._listening = Listening(self.loop)
        self._doors: list[_Door] = []
        self._patience = patience
        self._max_connections = max_connections
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return sum(len(door.connections) for door in self._doors)

    def open(self, path: Path, readers: Readers, access: Access, given: Given) -> None:
        """Listen on a socket: the one that was given for the path, which stays when this closes, or one made
        here, whose path appears when it answers. Raises ``OSError`` as ``bind`` does."""
        door = _Door(self, readers, Waits(self.loop, self._patience), self._max_connections)
        self._doors.append(door)
        self._listening.open(path, access, door.take, given.get(path))

    def open_all(
        self,
        policy: Path,
        evaluate: Path,
        evaluate_on_screen: Path,
        access: Access,
        given: Given = NONE_GIVEN,
    ) -> None:
        """Listen on the three; the one that the qrexec daemon asks comes last."""
        self.open(evaluate, evaluations, access, given)
        self.open(evaluate_on_screen, screen_evaluations, access, given)
        self.open(policy, LinesReader, access, given)

    async def close(self) -> None:
        """Take no more questions and drop those that are open: their callers are refused."""
        self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for door in self._doors:
            door.close()
        await self.answering.close()

    def run(self, waiting: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(waiting)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def complain(self, message: str) -> None:
        """Log this once in a while."""
        self._listening.complain(message)


class _Door:
    """The connections through one of the sockets."""

    def __init__(self, sockets: PolicySockets, readers: Readers, waits: Waits, max_connections: int) -> None:
        self.sockets = sockets
        self.waits = waits
        self.connections: set[_Connection] = set()
        self._readers = readers
        self._max_connections = max_connections

    def take(self, accepted: socket.socket) -> None:
        connection = _Connection(self, self._readers(), accepted)
        if len(self.connections) >= self._max_connections:
            self.sockets.complain(f"{self._max_connections} connections are open: closed one")
            silent = self.waits.longest()
            if silent is None:
                connection.close()
                return
            silent.close()
        self.connections.add(connection)
        connection.begin()

    def close(self) -> None:
        self.waits.close()
        for connection in tuple(self.connections):
            connection.close()


class _Connection(Served):
    __slots__ = ("_door", "_exact", "_reader", "_silent", "_unread")

    def __init__(self, door: _Door, reader: Reader, accepted: socket.socket) -> None:
        super().__init__(door.sockets.loop, accepted)
        self._door = door
        self._reader = reader
        self._exact = True
        """Whether all that has come so far was the request."""
        self._silent = True
        """Whether nothing has come so far."""
        self._unread = MAX_UNREAD

    def begin(self) -> None:
        """Take what has come already."""
        self._door.waits.begin(self)
        self._read()

    def closed(self) -> None:
        """Nothing more can come after the shutdown, and what has come (no more than the kernel keeps for a
        socket) is taken, so that the peer is not reset."""
        self._door.waits.end(self)
        self._door.connections.discard(self)
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
            while self._socket.recv(CHUNK):
                pass
        except OSError:
            # The peer has gone first.
            pass

    def written(self) -> None:
        """Close, or where the peer may be sending still, let it come to its end."""
        if self._exact:
            self.close()
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._read_by(self._pass_over)

    def _read(self) -> None:
        """Take what has come of the request, and answer it when that was all."""
        try:
            for _ in range(_READS):
                untrusted_data = self._socket.recv(CHUNK)
                if self._silent and not untrusted_data:
                    self._door.sockets.silent += 1
                    self.close()
                    return
                self._silent = False
                if not untrusted_data or self._reader.feed(untrusted_data):
                    self._exact = not untrusted_data or (self._reader.exact and len(untrusted_data) < CHUNK)
                    self._ask()
                    return
        except BlockingIOError:
            pass
        except QuestionError as error:
            self._exact = False
            self._refuse(error)
            return
        except OSError:
            self.close()
            return
        self._read_by(self._read)

    def _pass_over(self) -> None:
        """Drop what comes after the request."""
        try:
            for _ in range(_READS):
                more = len(self._socket.recv(CHUNK))
                self._unread -= more
                if not more or self._unread < 0:
                    self.close()
                    return
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _ask(self) -> None:
        self._stop_reading()
        try:
            question = self._reader.question()
        except QuestionError as error:
            self._refuse(error)
            return
        number = begin()
        try:
            answer = self._door.sockets.answering.answer(question)
            if answer is not None and not isinstance(answer, str):
                self._door.waits.end(self)
                self._door.sockets.run(self._finish(answer))
            else:
                self._answer(answer)
        finally:
            CALL.reset(number)

    async def _finish(self, waiting: Coroutine[Any, Any, Answer]) -> None:
        """The peer is not looked at meanwhile: a question that the user was asked stays one of its source's
        questions until the user is done with it, even when the call is given up."""
        try:
            answer = await waiting
        except Exception:
            # No qube may find a fault here that leaves its question open, or to the fallback.
            _log.exception("denied a question that could not be answered")
            answer = DENY
        if self._open:
            self._door.waits.begin(self)
            self._answer(answer)

    def _refuse(self, error: QuestionError) -> None:
        self._stop_reading()
        self._door.sockets.complain(f"closed without an answer: {error}")
        self._end()

    def _answer(self, answer: Answer) -> None:
        kind = "none" if answer is None else "deny" if answer == DENY else "allow"
        self._door.sockets.answers[kind] += 1
        if answer is not None:
            self._write(answer.encode("ascii") + self._reader.ending)
        self._end()
