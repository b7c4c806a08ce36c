"""Whom a question or a notification goes to, and how much of either one caller may cause."""

from __future__ import annotations

import asyncio
import logging

from broker.agent import Agents, Note
from broker.saying import say
from policy_engine import Asked, Request, World

_log = logging.getLogger("qrexec")

MAX_ASKS = 32
"""Questions of one source that wait for the user; more are denied."""

MAX_NOTES = 64
"""Notifications on their way; more are dropped. A qube can have calls denied as fast as it likes."""


class Prompter:
    """Asks and tells the users in front of the GUI qubes, by their agents."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._asking: dict[str, int] = {}
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Questions that wait for a user."""
        return sum(self._asking.values())

    async def ask(self, asked: Asked, request: Request, world: World) -> str | None:
        """The words of the agent of the source's GUI qube, exactly; ``None`` where nobody was asked.

        A question stays one of its source's until the user is done with it, even when the call is given up.
        """
        facts = world.find(asked.source)
        screen = None if facts is None else facts.guivm
        waiting = self._asking.get(asked.source, 0)
        if not screen:
            say(request, "nobody to ask: the source has no GUI qube")
            return None
        if waiting >= MAX_ASKS:
            say(request, f"not asked: {waiting} questions of this source wait for the user")
            return None
        self._asking[asked.source] = waiting + 1
        try:
            return await self._agents.ask(screen, asked, request, world)
        finally:
            self._asking[asked.source] -= 1
            if not self._asking[asked.source]:
                del self._asking[asked.source]

    def tell(self, notes: tuple[Note, ...]) -> None:
        """Have the user told, in this order; nothing waits for it."""
        if not notes:
            return
        if len(self._telling) >= MAX_NOTES:
            _log.warning("dropped a notification: %d are on their way", len(self._telling))
            return
        task = asyncio.get_running_loop().create_task(self._tell_all(notes))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def close(self, grace: float = 0.0) -> None:
        """Give up the notifications that are still on their way after ``grace`` seconds."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=grace)
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _tell_all(self, notes: tuple[Note, ...]) -> None:
        for note in notes:
            await self._agents.tell(note)


def note_of(world: World, request: Request, resolution: str, source: str, target: str) -> tuple[Note, ...]:
    """The notification for whoever sits in front of the source; none where nobody does."""
    facts = world.find(source)
    if facts is None or not facts.guivm:
        return ()
    return (Note(facts.guivm, resolution, request.service, request.argument, source, target),)


def denial(world: World, request: Request) -> tuple[Note, ...]:
    """Goes to the screen of the calling qube, whoever it calls for."""
    return note_of(world, request, "deny", request.source, request.target)
