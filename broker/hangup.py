"""Noticing at once that the other side of a connection is gone.

Once a client has said that it will send no more, an asyncio transport does not look at its socket until
something is written. A stream that is silent would keep its dead reader until then.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class HangUps:
    """Watches sockets for the end of both directions, and for nothing else."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._gone: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, descriptor: int, gone: Callable[[], None]) -> None:
        """Call ``gone`` once when the peer has closed; ``forget`` before the descriptor is closed."""
        self._gone[descriptor] = gone
        # No events asked for: the kernel tells of errors and hang-ups all the same.
        self._epoll.register(descriptor, 0)

    def forget(self, descriptor: int) -> None:
        """Stop watching; nothing where it was not watched."""
        if self._gone.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            gone = self._gone.get(descriptor)
            self.forget(descriptor)
            if gone is not None:
                gone()
