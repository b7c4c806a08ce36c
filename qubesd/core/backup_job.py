"""One backup under way: a thread for what blocks, the programs that it runs, and how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, ParamSpec, TypeVar

from qubesd.backup.processes import Processes

T = TypeVar("T")
P = ParamSpec("P")

_PAUSE = 1.0
"""Seconds between two reports at least."""


class Job:
    """Runs one thing after the other in its thread, until it is cancelled.

    Args:
        report: is told, in the loop, of the percentage that is done.
    """

    def __init__(self, report: Callable[[float], None]) -> None:
        self.processes = Processes()
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "backup")
        self._total = 0
        self._done = 0
        self._reported = float("-inf")
        self._closed = False
        self._waiting: asyncio.Task[object] | None = None

    def cancel(self) -> None:
        """Have what runs or waits end soon, with ``BackupCancelled``, and nothing begin any more."""
        self.processes.cancel()
        if self._waiting is not None:
            self._waiting.cancel()

    def close(self) -> None:
        """Let the thread go, which does nothing by now."""
        self._closed = True
        self._thread.shutdown(wait=False)

    async def run(self, work: Callable[P, T], *arguments: P.args, **by_name: P.kwargs) -> T:
        """The outcome of something that blocks. A caller that is cancelled cancels the job and waits too."""

        def checked() -> T:
            self.processes.check()
            return work(*arguments, **by_name)

        return await self._run(checked)

    async def wait(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of something that waits for others, which is left where this is cancelled meanwhile."""
        self.processes.check()
        waiting = self._waiting = asyncio.create_task(begin())
        try:
            return await waiting
        except asyncio.CancelledError:
            self.processes.check()
            raise
        finally:
            self._waiting = None

    @asynccontextmanager
    async def inside(self, manager: AbstractContextManager[T]) -> AsyncIterator[T]:
        """A context whose beginning and end block. Its end comes also where this is cancelled at its
        beginning."""
        entered: list[T] = []
        try:
            await self.run(lambda: entered.append(manager.__enter__()))
            yield entered[0]
        except BaseException as error:
            if entered:
                kind, found, trace = type(error), error, error.__traceback__
                await self._run(lambda: manager.__exit__(kind, found, trace))
            raise
        await self._run(lambda: manager.__exit__(None, None, None))

    def expect(self, total: int) -> None:
        """So many bytes are to be read in all."""
        self._total = total
        self._tell()

    def count(self, read: int) -> None:
        """So many more bytes were read; called in any thread."""
        self._done += read
        if time.monotonic() - self._reported >= _PAUSE:
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._reported >= _PAUSE and not self._closed:
            self._reported = now
            self._report(min(100.0, round(100 * self._done / self._total, 2)) if self._total else 0.0)

    async def _run(self, work: Callable[[], T]) -> T:
        future = self._loop.run_in_executor(self._thread, work)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError as error:
                cancelled = error
                self.cancel()
        if cancelled is not None:
            future.exception()  # that it was cancelled is what its caller has to know
            raise cancelled
        return future.result()
