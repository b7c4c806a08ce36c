"""The one call that ``qrexec-policy-daemon`` answers: what it decides by, asked by dom0's tools.

``qubesd`` has an internal socket for such calls; a daemon without a core has this one, which speaks the same
way and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

from broker.policy_methods import STATUS
from broker.sockets import Access, bind, publish
from broker.wire import FramingError, encode_content, parse_call
from qubesd.api.method import Call
from qubesd.model.state import DOM0

_log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that a connection may last, from its first byte to the last one taken."""

MAX_CONNECTIONS = 16
MAX_REQUEST = 4_096
"""Bytes."""

_QUESTION = Call(STATUS, "", DOM0, DOM0, b"")


class StatusSocket:
    """Answers with what ``tell`` says. ``open`` it once."""

    def __init__(self, path: Path, tell: Callable[[], str]) -> None:
        self.tell = tell
        self.connections: set[_Connection] = set()
        self.path = path
        self._server: asyncio.Server | None = None

    async def open(self, access: Access) -> None:
        """Listen. Raises ``OSError`` as ``bind`` does."""
        listening = bind(self.path, access)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Connection(self), sock=listening)
        publish(self.path)

    def close(self) -> None:
        """Take the socket away, if it was opened, and drop who is connected."""
        if self._server is None:
            return
        self._server.close()
        self.path.unlink(missing_ok=True)
        for connection in tuple(self.connections):
            connection.drop()


class _Connection(asyncio.Protocol):
    def __init__(self, owner: StatusSocket) -> None:
        self._owner = owner
        self._untrusted_request = bytearray()
        self._transport: asyncio.Transport
        self._end: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._end = asyncio.get_running_loop().call_later(PATIENCE, self.drop)
        self._owner.connections.add(self)
        if len(self._owner.connections) > MAX_CONNECTIONS:
            self.drop()

    def data_received(self, data: bytes) -> None:
        self._untrusted_request += data
        if len(self._untrusted_request) > MAX_REQUEST:
            self.drop()

    def eof_received(self) -> bool:
        try:
            call = parse_call(bytes(self._untrusted_request))
            if call == _QUESTION:
                self._transport.write(encode_content(self._owner.tell()))
            else:
                _log.warning("closed without an answer: not a call of %s", STATUS)
        except FramingError as error:
            _log.warning("closed without an answer: %s", error)
        self._transport.close()
        # The answer may still be on its way.
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._end.cancel()
        self._owner.connections.discard(self)

    def drop(self) -> None:
        """Close at once, whatever was still to be written."""
        self._transport.abort()
