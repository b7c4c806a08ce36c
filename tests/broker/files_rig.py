"""Policy files that are followed while a test edits them; real files, real inotify."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from broker.reload import Reloader, policy_in_force
from policy_engine import PolicyError
from tests.policy_engine.stock import stock

PATIENCE = 30.0
"""Seconds after which a test that waits fails. How fast it is otherwise is the bench's to say."""


class Place:
    """Policy directories in a scratch directory, and the policy that is followed there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime, self.configured, self.legacy = root / "run", root / "etc", root / "legacy"
        for directory in (self.runtime, self.configured, self.legacy):
            directory.mkdir()
        self.reloader: Reloader

    def write(self, name: str, *services: str) -> Path:
        path = self.root / name
        path.write_text(text(*services))
        return path

    def services(self) -> list[str] | str:
        """The services of the rules in force; without a policy the kind of what is wrong."""
        now = self.reloader.policies.now
        return now.kind if isinstance(now, PolicyError) else [rule.service for rule in stock(now.rules)]

    async def becomes(self, *services: str) -> None:
        await self._until(list(services))

    async def fails(self, kind: str) -> None:
        await self._until(kind)

    async def _until(self, expected: list[str] | str) -> None:
        await wait_until(lambda: self.services() == expected, str(expected))


async def wait_until(there: Callable[[], bool], what: str = "what the test waits for") -> None:
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline, f"{what} did not come about"
        await asyncio.sleep(0.002)


def text(*services: str) -> str:
    return "".join(f"{service} * @anyvm dom0 allow\n" for service in services)


Story = Callable[[Place], Coroutine[None, None, None]]


def follow(root: Path, before: Callable[[Place], object], story: Story, keep_last_good: bool = False) -> None:
    """Tell the story of what happens to files whose policy is followed; ``before`` lays out the files."""

    async def run() -> None:
        place = Place(root)
        before(place)
        directories = (str(place.runtime), str(place.configured))
        async with policy_in_force(
            directories, str(place.legacy), keep_last_good, enforced=True
        ) as place.reloader:
            await story(place)

    asyncio.run(run())
