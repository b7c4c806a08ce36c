"""Event streams: those that are read at once, those that are read slowly, those that are not read."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from pathlib import Path

from broker.client import connect
from broker.wire import EventReader, encode_call
from qubesd.api.call import Call
from tools.loading.house import COUNTER

FAST, SLOW, DEAF = "fast", "slow", "deaf"

_EVENT = f"domain-feature-set:{COUNTER}"
_SLOW_BYTES = 512
_SLOW_PAUSE = 1.0
_REST = 2.0
"""Seconds of silence after which there is nothing more to be read."""


@dataclass
class Stream:
    """One stream. ``heard`` has what the counter was, in order; ``closed`` is whether the daemon ended it."""

    path: Path
    pace: str
    heard: list[int] = field(default_factory=list)
    closed: bool = False

    def open(self) -> socket.socket:
        """The stream, begun: what happens from now on is in it."""
        connection = connect(self.path, 60.0)
        connection.sendall(encode_call(Call("admin.Events", "", "dom0", "dom0", b"")))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1, socket.MSG_PEEK)
        connection.setblocking(False)
        return connection

    async def follow(self, connection: socket.socket, stop: asyncio.Event) -> None:
        """Read at its pace until told to stop, and then whatever there still is."""
        loop, events = asyncio.get_running_loop(), EventReader()
        if self.pace == DEAF:
            await stop.wait()
        reading: asyncio.Task[bytes] | None = None
        while not self.closed:
            slowly = self.pace == SLOW and not stop.is_set()
            if reading is None:
                reading = asyncio.create_task(loop.sock_recv(connection, _SLOW_BYTES if slowly else 65_536))
            # It is never given up while there may be something in it: what it had read would be lost.
            if not (await asyncio.wait((reading,), timeout=_REST))[0]:
                if stop.is_set():
                    reading.cancel()
                    break
                continue
            try:
                data = reading.result()
            except ConnectionResetError:
                data = b""
            reading = None
            self.closed = not data
            self.heard += [int(event.keys["value"]) for event in events.feed(data) if event.name == _EVENT]
            if slowly:
                await asyncio.sleep(_SLOW_PAUSE)
        connection.close()

    def gap(self, last: int) -> str:
        """What was heard, and the first number that is not where it should be."""
        pairs = zip(self.heard, range(1, last + 1), strict=False)
        first = next((want for got, want in pairs if got != want), len(self.heard) + 1)
        return f"{len(self.heard)} of {last}, and {first} is missing"

    def lost(self, last: int) -> bool:
        """Whether events are missing of a stream that goes on: one that was closed may end early, and none
        may have a gap."""
        wanted = list(range(1, last + 1))
        return self.heard != (wanted[: len(self.heard)] if self.closed else wanted)
