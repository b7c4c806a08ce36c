"""What a policy daemon sends to an agent, and fronts and agents to send it to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.prompts.desk import Desk
from broker.prompts.door import Door
from broker.prompts.front import Answer
from broker.prompts.messages import Note, Question, parse
from broker.prompts.notes import Told
from broker.sockets import Access

LIMIT = 20.0
"""Seconds that anything may take."""

ASK = {
    "source": "work",
    "service": "qubes.Filecopy",
    "argument": "+",
    "targets": ["personal", "vault"],
    "default_target": "vault",
    "icons": {"work": "appvm-green", "vault": "appvm-black"},
}
DEVICE = {
    "source": "sys-usb",
    "device_name": "Big Disk",
    "argument": "sda",
    "targets": ["work"],
    "default_target": "work",
    "icons": {"sys-usb": "servicevm-red", "work": "appvm-green"},
}
NOTIFY = {
    "resolution": "deny",
    "service": "qubes.Filecopy",
    "argument": "+",
    "source": "work",
    "target": "@default",
}


def ask(**changed: Any) -> bytes:
    """A question as the daemon of dom0 sends it; ``None`` leaves a key out."""
    return message(b"policy.Ask", ASK | changed)


def device(**changed: Any) -> bytes:
    return message(b"device-agent.GUI", DEVICE | changed)


def notify(**changed: Any) -> bytes:
    return message(b"policy.Notify", NOTIFY | changed)


def message(service: bytes, content: dict[str, Any]) -> bytes:
    kept = {key: value for key, value in content.items() if value is not None}
    return service + b" dom0 name dom0\0" + json.dumps(kept).encode()


def question(**changed: Any) -> Question:
    found = parse(ask(**changed))
    assert isinstance(found, Question)
    return found


def note(**changed: Any) -> Note:
    found = parse(notify(**changed))
    assert isinstance(found, Note)
    return found


@dataclass
class Person:
    """A front that a test answers; ``seen`` is what came to the screen, in order."""

    seen: list[str] = field(default_factory=list)
    question: Question | None = None
    answer: Answer | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def show(self, question: Question, deadline: float, answer: Answer) -> None:
        assert self.question is None
        self.question, self.answer = question, answer
        self._see(f"? {question.source} {question.service or question.heading}")

    def withdraw(self, reason: str) -> None:
        assert self.question is not None
        self.question = None
        self._see(f"gone: {reason}")

    def tell(self, told: Told) -> None:
        assert self.question is None, "a note covers a question"
        self._see(f"! {told.note.resolution} {told.note.source} {told.others}")

    def say(self, target: str | None) -> None:
        assert self.answer is not None
        self.question = None
        self.answer(target)

    async def until(self, *seen: str) -> None:
        """Wait until exactly this has been seen since the last time."""
        async with asyncio.timeout(LIMIT):
            while len(self.seen) < len(seen):
                self.changed.clear()
                await self.changed.wait()
        assert self.seen == [*seen]
        self.seen.clear()

    def _see(self, what: str) -> None:
        self.seen.append(what)
        self.changed.set()


class Agent:
    """An agent in this loop, whose person is the test."""

    access = Access(0o600)

    def __init__(self, path: Path, timeout: float, **bounds: Any) -> None:
        self.path = path
        self.person = Person()
        self.desk = Desk(self.person, timeout, note_interval=0.0)
        self.door = Door(self.desk, **bounds)
        self.door.open(path, self.access)
        self._open = ExitStack()
        self._open.callback(self.door.close)
        self._open.callback(self.desk.close)

    def end(self) -> None:
        """Nothing where it has ended."""
        self._open.close()

    async def send(self, data: bytes) -> bytes:
        """What is answered to these bytes and the end of them."""
        async with asyncio.timeout(LIMIT):
            with self.connected() as peer:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(peer, data)
                peer.shutdown(socket.SHUT_WR)
                return await received(peer)

    def connected(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.connect(str(self.path))
        peer.setblocking(False)
        return peer


async def received(peer: socket.socket) -> bytes:
    """All to the end; a reset is one too."""
    loop = asyncio.get_running_loop()
    data = b""
    try:
        while more := await loop.sock_recv(peer, 4096):
            data += more
    except ConnectionResetError:
        pass
    return data


def visit(
    folder: Path, guest: Callable[[Agent], Coroutine[Any, Any, None]], timeout: float = LIMIT, **bounds: Any
) -> None:
    async def stay() -> None:
        agent = Agent(folder / "agent.sock", timeout, **bounds)
        try:
            await guest(agent)
        finally:
            agent.end()

    asyncio.run(stay())
