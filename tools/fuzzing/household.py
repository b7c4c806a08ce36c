"""What the daemon under test talks to: a stock qubesd's internal socket, and the agent of dom0's user."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from zlib import crc32

from broker.sockets import short_path

QUBESD = "qubesd.internal.sock"
_REQUEST = b"internal.GetSystemInfo+ dom0 name dom0\0"


def said(source: str, service: str, argument: str, targets: Sequence[str]) -> bytes:
    """What the user says to a question, which follows from the question. Two in three are a yes."""
    chance = crc32(f"{source} {service} {argument} {' '.join(targets)}".encode())
    choice = targets[chance % len(targets)]
    if chance % 3:
        return f"allow:{choice}".encode("ascii")
    spoiled = (
        b"deny",
        b"",
        f"allow:{choice}\n".encode(),
        b"allow:",
        b"allow:nowhere",
        b"allow:\xff",
        b"a" * 9_000,
    )
    return spoiled[chance // 3 % len(spoiled)]


class Household:
    """Counts what it is asked; ``faults`` are calls that no daemon should make."""

    def __init__(self, document: Callable[[], bytes]) -> None:
        self._document = document
        self.fetches = 0
        self.questions = 0
        self.notes = 0
        self.faults: list[str] = []

    @asynccontextmanager
    async def at(self, folder: Path) -> AsyncIterator[None]:
        """Listens on the three sockets in this folder."""
        servers = []
        for name, serve in (
            (QUBESD, self._qubesd),
            ("policy.Ask", self._agent),
            ("policy.Notify", self._agent),
        ):
            with short_path(folder / name) as path:
                servers.append(await asyncio.start_unix_server(serve, path, backlog=1_024))
        try:
            yield
        finally:
            for server in servers:
                server.close()

    async def _qubesd(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()
        if request != _REQUEST:
            self.faults.append(f"qubesd was sent {request!r}")
        else:
            self.fetches += 1
            writer.write(b"0\0" + self._document())
        writer.close()

    async def _agent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = await reader.read()
        header, _, message = call.partition(b"\0")
        try:
            told = json.loads(message)
            if header == b"policy.Ask dom0 name dom0":
                self.questions += 1
                writer.write(said(told["source"], told["service"], told["argument"], told["targets"]))
            elif header == b"policy.Notify dom0 name dom0" and told["resolution"] in ("allow", "deny"):
                self.notes += 1
            else:
                self.faults.append(f"the agent was sent {call!r}")
        except (ValueError, TypeError, LookupError) as error:
            self.faults.append(f"the agent was sent {call!r}: {error}")
        writer.close()
