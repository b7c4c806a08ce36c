"""The qubes as a stock qubesd has them, for decisions outside of it (``spec/policy-daemon.md`` 3.3).

A question is never judged on a state older than itself. Questions that come while the state is being fetched
share the next fetch, which begins after all of them; so many questions at once cost few fetches.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path

from broker.answering import StateError
from broker.sockets import short_path
from policy_engine import World, WorldError

PATIENCE = 20.0
"""Seconds that qubesd may take."""

MAX_DOCUMENT = 64 * 1024 * 1024
"""Bytes of a description: some 100,000 qubes."""

_REQUEST = b"internal.GetSystemInfo+ dom0 name dom0\0"
_SUCCESS = b"0\0"


class StockState:
    """Fetches the state over ``qubesd.internal.sock``, whose path is given."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running: asyncio.Task[World] | None = None
        self._next: asyncio.Task[World] | None = None
        self._document = b""
        self._world = World.of(())

    async def world(self) -> World:
        """The qubes as they were at some time after this was called. Raises ``StateError``."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._after(self._running))
        # Whoever gives up waiting must not take the fetch from the others.
        return await asyncio.shield(self._next)

    async def _after(self, before: asyncio.Task[World] | None) -> World:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        document = await fetch(self._path)
        if document != self._document:
            self._world, self._document = parse_state(document), document
        return self._world


async def fetch(path: Path) -> bytes:
    """The JSON document that describes the system. Raises ``StateError``."""
    try:
        async with asyncio.timeout(PATIENCE):
            with short_path(path) as name:
                reader, writer = await asyncio.open_unix_connection(name)
            with closing(writer):
                writer.write(_REQUEST)
                writer.write_eof()
                reply = await reader.read(len(_SUCCESS))
                content = bytearray()
                while data := await reader.read(1 << 20):
                    content += data
                    if len(content) > MAX_DOCUMENT:
                        raise StateError(f"{path}: more than {MAX_DOCUMENT} bytes of state")
    except TimeoutError:
        raise StateError(f"{path}: qubesd does not answer within {PATIENCE:.0f} s") from None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror or error}") from error
    if reply != _SUCCESS:
        raise StateError(f"{path}: qubesd answers with an error")
    return bytes(content)


def parse_state(document: bytes) -> World:
    """The qubes of a description. Raises ``StateError``."""
    try:
        description = json.loads(document)
        if not isinstance(description, dict):
            raise WorldError("expected an object")
        return World.from_system_info(description)
    except (ValueError, RecursionError, WorldError) as error:
        raise StateError(f"the description of the qubes cannot be used: {error}") from error
