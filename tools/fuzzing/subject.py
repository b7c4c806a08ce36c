"""The daemon under test: a process of its own, started, watched from outside and stopped."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

START_LIMIT = 60.0
STOP_LIMIT = 30.0
"""Seconds."""
_LOG_LIMIT = 2.0

_FOREIGN = re.compile(rb"^(?!(?:INFO|WARNING|ERROR): [ -~]*$).*$", re.MULTILINE)
"""A line that is not plainly the daemon's own: of a traceback, or one that a request wrote there."""
_PAGE_KIB = resource.getpagesize() // 1024


class SubjectError(Exception):
    """The daemon did not start; the text says what it said."""


class Subject:
    """A running daemon; ``startled`` is the first line of its log that should not be there."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.startled: str | None = None
        self.said: deque[bytes] = deque(maxlen=16)
        """The last portions of its log."""

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def descriptors(self) -> int:
        """How many are open; 0 once it is gone."""
        try:
            return len(os.listdir(f"/proc/{self.process.pid}/fd"))
        except OSError:
            return 0

    def memory(self) -> int:
        """Resident, in KiB; 0 once it is gone."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE_KIB
        except OSError:
            return 0

    def last_words(self) -> str:
        return b"".join(self.said).decode("ascii", "backslashreplace")

    async def listen(self) -> None:
        """Read the log until it ends. The daemon would stand still at a full pipe."""
        assert self.process.stderr is not None
        rest = b""
        while data := await self.process.stderr.read(1 << 18):
            lines, end, rest = (rest + data).rpartition(b"\n")
            self._look(lines + end)
        self._look(rest)

    def _look(self, lines: bytes) -> None:
        if not lines:
            return
        self.said.append(lines[-4_000:])
        foreign = _FOREIGN.search(lines.removesuffix(b"\n"))
        if foreign is not None and self.startled is None:
            self.startled = lines[foreign.start() : foreign.start() + 4_000].decode(
                "ascii", "backslashreplace"
            )


async def _until_ready(subject: Subject, ready: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not ready.exists():
        await asyncio.sleep(0.02)
        if not subject.running:
            status = subject.process.returncode
            raise SubjectError(f"the daemon ended with status {status} at its start:\n{subject.last_words()}")
        if time.monotonic() > deadline:
            raise SubjectError(f"the daemon was not ready within {START_LIMIT:.0f} s")


@asynccontextmanager
async def running(command: Sequence[str], ready: Path) -> AsyncIterator[Subject]:
    """The daemon, from when ``ready`` is there until the block ends.

    Raises:
        SubjectError: it is not ready in time, or does not stop in order.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        # What it says goes to its log; and nobody is to wait for an end of our own output that it holds.
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # Ctrl-C is for the fuzzer, which then ends the daemon in order.
        start_new_session=True,
    )
    subject = Subject(process)
    listening = asyncio.create_task(subject.listen())
    try:
        await _until_ready(subject, ready)
        yield subject
    finally:
        if subject.running:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_LIMIT)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        # What the daemon has started may live longer, and hold its log open.
        await asyncio.wait([listening], timeout=_LOG_LIMIT)
        listening.cancel()
