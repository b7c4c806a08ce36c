"""A new policy as soon as anything that the policy is made of has changed.

The new one is read in a thread, beside the policy in force, and takes its place whole. Edits come in bursts,
so it is read when they pause and no file of it is half written; where that does not come to pass, it is read
amid them rather than be old for long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from broker.catalogue import catalogue
from broker.judge import PolicyInForce
from broker.watches import WatchedSource, Watches
from policy_engine import Loader, Policy, PolicyError

_log = logging.getLogger(__name__)

PAUSE = 0.01
"""Seconds without a change after which a burst of edits counts as over."""

LONGEST = 0.5
"""Seconds after which the policy is read though the edits do not end."""

UNFINISHED = 2.0
"""Seconds after which the policy is read though a file of it is written and was not closed: with what is
missing of it, rules may be missing that deny."""

BLIND = 1.0
"""Seconds from one reading to the next while something cannot be watched."""


@asynccontextmanager
async def policy_in_force(
    directories: Sequence[str], legacy: str, keep_last_good: bool, enforced: bool
) -> AsyncIterator[Reloader]:
    """The policy of these directories, read, and followed until the block ends.

    Args:
        directories: the policy directories, the one of highest precedence first.
        legacy: the directory that ``!compat-4.0`` reads.
        keep_last_good: go on with the policy before where the new one does not load.
        enforced: as of ``Catalogue``: this daemon carries the Admin API's calls out.

    Raises:
        OSError: there is no more room for an inotify descriptor.
    """
    watches = Watches()
    try:
        reloader = Reloader(
            Loader(WatchedSource(watches), directories, legacy, partial(catalogue, enforced)),
            keep_last_good,
            watches,
        )
        loop = asyncio.get_running_loop()
        loop.add_reader(watches.descriptor, reloader.look)
        try:
            await reloader.first()
            following = asyncio.create_task(reloader.follow(), name="policy")
            try:
                yield reloader
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following
        finally:
            loop.remove_reader(watches.descriptor)
    finally:
        watches.close()


class Reloader:
    """Keeps ``policies`` in step with the files. ``policy_in_force`` makes it."""

    def __init__(self, loader: Loader, keep_last_good: bool, watches: Watches) -> None:
        self.policies = PolicyInForce(loader.load, keep_last_good)
        self.swapped: Callable[[], None] = _nothing
        """Called when another policy has come into force, or none."""
        self._watches = watches
        self._outdated = asyncio.Event()
        self._was_blind = False
        self._loop = asyncio.get_running_loop()

    @property
    def unwatched(self) -> tuple[str, ...]:
        """Places of the policy that cannot be watched, and are looked at every second instead."""
        return tuple(self._watches.blind)

    def reload(self) -> None:
        """Read the policy again whether or not a change was seen."""
        self._outdated.set()

    def look(self) -> None:
        """Take note of what the kernel tells."""
        if self._watches.changed():
            self._outdated.set()

    async def first(self) -> None:
        """Read the policy for the first time."""
        self._put(await asyncio.to_thread(self._read))

    async def follow(self) -> None:
        """Read the policy whenever it has changed, for ever."""
        while True:
            await self._wait(BLIND if self._watches.blind else None)
            began = self._loop.time()
            late = False
            while not late:
                late = await self._calm(began)
                policy = await asyncio.to_thread(self._read)
                self.look()
                # What changed meanwhile may be half in it.
                if not self._outdated.is_set() and not self._watches.unfinished:
                    break
            self._put(policy)

    async def _calm(self, began: float) -> bool:
        """Wait until the edits that began then are over; whether they took too long to wait for."""
        while True:
            self._outdated.clear()
            unfinished = self._watches.unfinished
            left = began + (UNFINISHED if unfinished else LONGEST) - self._loop.time()
            if left <= 0:
                return True
            if not await self._wait(left if unfinished else PAUSE) and not unfinished:
                return False

    async def _wait(self, seconds: float | None) -> bool:
        """Wait for a change; whether there was one in this time."""
        try:
            async with asyncio.timeout(seconds):
                await self._outdated.wait()
        except TimeoutError:
            return False
        return True

    def _read(self) -> Policy | PolicyError:
        self._watches.begin()
        try:
            return self.policies.read()
        finally:
            self._watches.end()

    def _put(self, policy: Policy | PolicyError) -> None:
        blind = self._watches.blind
        if blind and not self._was_blind:
            _log.warning(
                "%s: cannot be watched, so the policy is read every %.0f s: "
                "raise fs.inotify.max_user_watches, or let the daemon read this place",
                blind[0],
                BLIND,
            )
        self._was_blind = bool(blind)
        before = self.policies.now
        self.policies.put(policy)
        if self.policies.now is not before:
            self.swapped()


def _nothing() -> None:
    """Until somebody wants to know."""
