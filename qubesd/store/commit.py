"""Group commit: calls that change the system at the same time share one write.

A write takes milliseconds, nearly all of them waiting for the disk. While one runs, further changes pile up;
the next write makes all of them durable at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from qubesd.errors import StoreError
from qubesd.model.state import System

_log = logging.getLogger(__name__)


class GroupCommit:
    """Writes the system that is current whenever somebody waits for that, one write at a time."""

    def __init__(self, save: Callable[[System], None], written: System) -> None:
        """``save`` blocks and raises ``StoreError``; it runs in a thread of its own. ``written`` is on the
        disk."""
        self.written = written
        self.saves = {"ok": 0, "failed": 0}
        """Writes since the start, by how they ended."""
        self.seconds = 0.0
        """Spent on them."""
        self._save = save
        self._waiting: list[asyncio.Future[None]] = []
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    @property
    def waiting(self) -> int:
        """Changes that wait for a write."""
        return len(self._waiting)

    async def durable(self, current: Callable[[], System], restore: Callable[[], None]) -> None:
        """Return when what is current now, or something later, is on the disk.

        To be awaited in the same turn of the loop as the change. Where a write fails, everybody who waits is
        told, for each change was made on top of the one that could not be written. Before anybody is told,
        ``restore`` is called once; it makes ``written`` the current system again.

        Raises:
            StoreError: nothing was written.
        """
        if self._writer is None:
            if current() is self.written:
                return
            self._writer = asyncio.create_task(self._write(current, restore))
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    async def close(self) -> None:
        """Return when no write runs; nothing may be committed any more."""
        if self._writer is not None:
            await self._writer
        self._thread.shutdown()

    async def _write(self, current: Callable[[], System], restore: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            served, self._waiting = self._waiting, []
            system = current()
            began = loop.time()
            try:
                await loop.run_in_executor(self._thread, self._save, system)
            except Exception as error:
                self.saves["failed"] += 1
                _log.error("the system was not saved: %s", error, exc_info=not isinstance(error, StoreError))
                restore()
                served += self._waiting
                self._waiting = []
                self._tell(served, error)
            else:
                self.saves["ok"] += 1
                self.written = system
                self._tell(served, None)
            finally:
                self.seconds += loop.time() - began
        self._writer = None

    @staticmethod
    def _tell(waiters: list[asyncio.Future[None]], error: Exception | None) -> None:
        for waiter in waiters:
            if waiter.done():  # its call was cancelled
                continue
            if error is None:
                waiter.set_result(None)
            else:
                told = StoreError(str(error))
                told.__cause__ = error
                waiter.set_exception(told)
