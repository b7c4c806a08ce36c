"""The qubes as a stock qubesd has them, for decisions outside of it (``spec/policy-daemon.md`` 3.3).

A question is never judged on a state older than itself. Questions that come while the state is being fetched
share the next fetch, which begins after all of them; so many questions at once cost few fetches.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from broker.answering import StateError
from broker.client import CallError, NoReplyError
from broker.internal import ask
from policy_engine import World, WorldError
from policy_engine.errors import quoted

PATIENCE = 20.0
"""Seconds that qubesd may take."""

MAX_DOCUMENT = 64 * 1024 * 1024
"""Bytes of a description: some 100,000 qubes."""


class StockState:
    """Fetches the state over ``qubesd.internal.sock``, whose path is given.

    ``patience`` is in seconds, for one fetch; a question waits for two at most.
    """

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
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
        document = await fetch(self._path, self._patience)
        if document != self._document:
            self._world, self._document = parse_state(document), document
        return self._world


async def fetch(path: Path, patience: float = PATIENCE) -> bytes:
    """The JSON document that describes the system. Raises ``StateError``."""
    try:
        return await ask(path, "internal.GetSystemInfo", patience, MAX_DOCUMENT)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror or error}") from error
    except CallError as error:
        raise StateError(f"{path}: qubesd answers with {quoted(error.kind)}") from error
    except NoReplyError as error:
        raise StateError(f"{path}: qubesd breaks off: {error}") from error


def parse_state(document: bytes) -> World:
    """The qubes of a description. Raises ``StateError``."""
    try:
        description = json.loads(document)
        if not isinstance(description, dict):
            raise WorldError("expected an object")
        return World.from_system_info(description)
    except (ValueError, RecursionError, WorldError) as error:
        raise StateError(f"the description of the qubes cannot be used: {error}") from error
