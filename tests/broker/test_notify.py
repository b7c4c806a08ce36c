"""What the service manager is told."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.notify import give_signs_of_life, notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_signs_of_life_come_as_long_as_the_loop_turns(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    async def story() -> None:
        give_signs_of_life()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20.0):
            for _ in range(4):
                assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"

    asyncio.run(story())


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="not-asked"),
        pytest.param({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, id="another-process"),
    ],
)
def test_no_sign_of_life_unasked(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    async def story() -> None:
        give_signs_of_life()
        notify("READY=1")

    asyncio.run(story())
    assert manager.recv(100) == b"READY=1"
    with pytest.raises(BlockingIOError):
        manager.recv(100)
