"""The sockets that are asked for decisions: connections of one question each, read whole, answered, closed.

Only dom0 can connect, but what it asks comes from the qubes. A question has to be whole in time; what is over
a bound is closed without a byte, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, cast

from broker.activation import NONE_GIVEN, Given
from broker.answering import DENY, Answer, Answering
from broker.questions import EvaluationReader, LinesReader, QuestionError, Reader
from broker.sockets import Access, bind, publish

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 8_192
"""Open connections to all policy sockets of a daemon."""

PATIENCE = 60.0
"""Seconds in which a question has to be whole, and its answer has to be taken. The C qrexec daemon sends it
in one piece, right after it has connected."""

BACKLOG = 1_024

_SWEEP = 5.0
_BUFFER = 128 * 1024
"""Larger than any question that qrexec carries, so that one reading takes all of it."""

Readers = Callable[[], Reader]

evaluations: Readers = partial(EvaluationReader, "policy.EvalSimple", of_screen=False)
screen_evaluations: Readers = partial(EvaluationReader, "policy.EvalGUI", of_screen=True)


class PolicySockets:
    """The policy sockets of one daemon and their connections."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.buffer = bytearray(_BUFFER)
        self.connections: dict[_Connection, None] = {}
        """Oldest first."""
        self._loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server] = []
        self._made: list[Path] = []
        """Paths that are removed at the end."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep = self._loop.call_later(_SWEEP, self._sweep_out)

    async def open(self, path: Path, readers: Readers, access: Access, given: Given) -> None:
        """Listen on a socket: the one that was given for the path, which stays when this closes, or one made
        here, whose path appears when it answers. Raises ``OSError`` as ``bind`` does."""
        listening = given.get(path) or bind(path, access)
        # ``create_unix_server`` of Python 3.13 and later would remove paths that others have made.
        server = await self._loop.create_server(
            lambda: _Connection(self, readers()), sock=listening, backlog=BACKLOG
        )
        self._servers.append(server)
        if path not in given:
            publish(path)
            self._made.append(path)

    async def open_all(
        self,
        policy: Path,
        evaluate: Path,
        evaluate_on_screen: Path,
        access: Access,
        given: Given = NONE_GIVEN,
    ) -> None:
        """Listen on the three; the one that the qrexec daemon asks comes last."""
        await self.open(evaluate, evaluations, access, given)
        await self.open(evaluate_on_screen, screen_evaluations, access, given)
        await self.open(policy, LinesReader, access, given)

    async def close(self) -> None:
        """Take no more questions and drop those that are open: their callers are refused."""
        self._sweep.cancel()
        for server in self._servers:
            server.close()
        for path in self._made:
            path.unlink(missing_ok=True)
        self._servers.clear()
        self._made.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in tuple(self.connections):
            connection.drop()
        # The transports tell of their end in the next turn of the loop.
        while self.connections:
            await asyncio.sleep(0)
        await self.answering.close()

    def run(self, waiting: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(waiting)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep_out(self) -> None:
        """Drop whoever was waited for too long."""
        latest = time.monotonic() - PATIENCE
        for connection in [one for one in self.connections if one.since is not None and one.since < latest]:
            _log.warning("closed a connection that was waited for longer than %.0f s", PATIENCE)
            connection.drop()
        self._sweep = self._loop.call_later(_SWEEP, self._sweep_out)


class _Connection(asyncio.BufferedProtocol):
    __slots__ = ("_answered", "_asked", "_ended", "_reader", "_sockets", "_transport", "since")

    def __init__(self, sockets: PolicySockets, reader: Reader) -> None:
        self.since: float | None = None
        """Since when the peer has been waited for, on the monotonic clock; ``None`` while it waits for us."""
        self._sockets = sockets
        self._reader = reader
        self._asked = False
        self._answered = False
        self._ended = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._sockets.connections) >= MAX_CONNECTIONS:
            self._transport.abort()
            return
        self.since = time.monotonic()
        self._sockets.connections[self] = None

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes are put: one place for all connections, emptied at once."""
        return self._sockets.buffer

    def buffer_updated(self, length: int) -> None:
        if self._asked:
            return
        try:
            if not self._reader.feed(memoryview(self._sockets.buffer)[:length]):
                return
        except QuestionError as error:
            _log.warning("closed without an answer: %s", error)
            self._transport.abort()
            return
        self._ask()

    def eof_received(self) -> bool:
        """Stay open for an answer to a peer that has only closed its own direction."""
        self._ended = True
        if not self._asked:
            self._ask()
        return not self._answered

    def connection_lost(self, error: Exception | None) -> None:
        self._sockets.connections.pop(self, None)

    def drop(self) -> None:
        """Close at once, whatever was still to be written."""
        self._transport.abort()

    def _ask(self) -> None:
        self._asked = True
        try:
            question = self._reader.question()
        except QuestionError as error:
            _log.warning("closed without an answer: %s", error)
            self._answer(None)
            return
        answer = self._sockets.answering.answer(question)
        if answer is not None and not isinstance(answer, str):
            self.since = None
            self._sockets.run(self._finish(answer))
        else:
            self._answer(answer)

    async def _finish(self, waiting: Coroutine[Any, Any, Answer]) -> None:
        try:
            answer = await waiting
        except Exception:
            # No qube may find a fault here that leaves its question open, or to the fallback.
            _log.exception("denied a question that could not be answered")
            answer = DENY
        self.since = time.monotonic()
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        self._answered = True
        if answer is not None:
            self._transport.write(answer.encode("ascii") + self._reader.ending)
        if self._ended:
            self._transport.close()
        else:
            # The peer closes first: were bytes of it unread here, closing would take the answer from it.
            self._transport.write_eof()
