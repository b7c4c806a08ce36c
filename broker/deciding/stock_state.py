"""The qubes as a stock qubesd has them, for decisions outside of it (``spec/policy-daemon.md`` 3.3).

A question is never judged on a state older than itself. Questions that come while the state is being fetched
share the next fetch, which begins after all of them; so many questions at once cost few fetches.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from broker.client import CallError, NoReplyError
from broker.deciding.state import StateError
from broker.internal import ask
from policy_engine import QubeFacts, World, WorldError
from policy_engine.errors import quoted

PATIENCE = 20.0
"""Seconds that qubesd may take."""

MAX_DOCUMENT = 64 * 1024 * 1024
"""Bytes of a description: some 100,000 qubes."""


FEW = 16
"""Changes that are made to the world before one by one; for more it is made anew."""

Described = Mapping[str, object]
"""Qubes by their names, as in the description."""


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
        self._qubes: Described = {}
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
            qubes = _described(document)
            self._world = _derived(self._world, self._qubes, qubes)
            self._qubes, self._document = qubes, document
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
    return _derived(World.of(()), {}, _described(document))


def _described(document: bytes) -> Described:
    try:
        description = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise StateError(f"the description of the qubes cannot be used: {error}") from error
    qubes = description.get("domains") if isinstance(description, dict) else None
    if not isinstance(qubes, dict):
        raise StateError("the description of the qubes cannot be used: domains: expected an object")
    return qubes


def _derived(world: World, before: Described, now: Described) -> World:
    """The world of ``now``, made of ``world``, which is that of ``before``. Raises ``StateError``."""
    changed = {name: qube for name, qube in now.items() if before.get(name) != qube}
    gone = before.keys() - now.keys()
    try:
        if len(changed) + len(gone) <= FEW:
            with suppress(WorldError):
                return _stepwise(world, gone, World.from_system_info({"domains": changed}))
        # Also where two qubes have changed places, which no step alone can do.
        return World.from_system_info({"domains": now})
    except WorldError as error:
        raise StateError(f"the description of the qubes cannot be used: {error}") from error


def _stepwise(world: World, gone: Iterable[str], changed: Iterable[QubeFacts]) -> World:
    for name in gone:
        world = world.without(name)
    for facts in changed:
        world = world.with_qube(facts)
    return world
