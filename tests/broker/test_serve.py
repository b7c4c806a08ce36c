"""Connections and their bounds in time, on real sockets; the bounds in number are tried end to end."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from broker.client import connect
from broker.contract import Methods
from broker.hangup import HangUps
from broker.identity import Dom0Door
from broker.serve import House
from broker.sockets import Access, answers, bind, publish
from broker.wire import ESTABLISHED
from qubesd.api.method import Command, EventRows, EventStream, Reply, Text
from qubesd.core.core import Core
from tests.broker.desk import Desk, method, visit

PATIENCE = 0.6
CONTENT = "x" * 4_000_000
"""More than the kernel takes at a time."""


async def slow(core: Core, command: Command) -> Reply:
    await asyncio.sleep(3 * PATIENCE)
    return Text("done")


def long(core: Core, command: Command) -> Reply:
    return Text(CONTENT)


def stream(core: Core, command: Command) -> Reply:
    return EventStream(None)


METHODS = {
    one.name: one
    for one in (
        method("test.Slow", slow),
        method("test.Long", long),
        method("test.Stream", stream, EventRows("test.Stream")),
    )
}


def exchange(path: Path, data: bytes, read_after: float = 0) -> tuple[bytes, float]:
    """What comes back, to the end, and the seconds that it took; read only after so many seconds."""
    started = time.monotonic()
    received = b""
    with connect(path, 60) as connection:
        connection.sendall(data)
        if data.endswith(b"\0"):
            connection.shutdown(socket.SHUT_WR)
        time.sleep(read_after)
        try:
            while more := connection.recv(1_000_000):
                received += more
        except ConnectionResetError:
            pass
    return received, time.monotonic() - started


def serve(
    root: Path, guest: Callable[[House, Path], Coroutine[Any, Any, None]], methods: Methods = METHODS
) -> None:
    """A house with little patience and one socket of dom0's."""

    async def open_house(desk: Desk) -> None:
        house = House(desk.core, desk.dispatcher, PATIENCE)
        path = root / "socket"
        house.open(path, Dom0Door(0, None), methods, Access(0o600))
        try:
            await guest(house, path)
        finally:
            await house.close(grace=60)
        assert not path.exists()

    visit(root, methods, open_house)


@pytest.mark.parametrize("data", [b"", b"test.Long dom0 name dom0"], ids=["silent", "half-a-request"])
def test_who_does_not_come_to_an_end_is_dropped(tmp_path: Path, data: bytes) -> None:
    async def visit(house: House, path: Path) -> None:
        received, seconds = await asyncio.to_thread(exchange, path, data)
        assert received == b""
        assert seconds >= PATIENCE

    serve(tmp_path, visit)


def test_who_does_not_take_its_answer_is_dropped(tmp_path: Path) -> None:
    async def visit(house: House, path: Path) -> None:
        received, _ = await asyncio.to_thread(exchange, path, b"test.Long dom0 name dom0\0", 2 * PATIENCE)
        assert 0 < len(received) < len(CONTENT)

    serve(tmp_path, visit)


def test_an_answer_that_is_taken_comes_whole(tmp_path: Path) -> None:
    async def visit(house: House, path: Path) -> None:
        received, _ = await asyncio.to_thread(exchange, path, b"test.Long dom0 name dom0\0")
        assert received == b"0\0" + CONTENT.encode("ascii")

    serve(tmp_path, visit)


def test_who_waits_for_us_is_not_dropped(tmp_path: Path) -> None:
    """A long call, and a listener of events that do not happen."""

    async def visit(house: House, path: Path) -> None:
        with connect(path, 60) as listening:
            await asyncio.to_thread(listening.sendall, b"test.Stream dom0 name dom0\0")
            listening.shutdown(socket.SHUT_WR)
            received, seconds = await asyncio.to_thread(exchange, path, b"test.Slow dom0 name dom0\0")
            assert received == b"0\0done"
            assert seconds >= 3 * PATIENCE
            assert await asyncio.to_thread(listening.recv, 100) == ESTABLISHED
            listening.setblocking(False)
            with pytest.raises(BlockingIOError):
                listening.recv(1)

    serve(tmp_path, visit)


def test_a_call_that_runs_is_answered_before_the_house_closes(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as thread:

        async def visit(house: House, path: Path) -> None:
            calls.append(thread.submit(exchange, path, b"test.Slow dom0 name dom0\0"))
            await begun.wait()

        async def begin(core: Core, command: Command) -> Reply:
            begun.set()
            return await slow(core, command)

        begun = asyncio.Event()
        calls: list[Future[tuple[bytes, float]]] = []
        serve(tmp_path, visit, {"test.Slow": method("test.Slow", begin)})
        assert calls[0].result()[0] == b"0\0done"


def test_a_hang_up_is_noticed_without_a_word(tmp_path: Path) -> None:
    async def visit() -> None:
        loop = asyncio.get_running_loop()
        hang_ups = HangUps(loop)
        gone = asyncio.Event()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            hang_ups.watch(ours.fileno(), gone.set)
            theirs.sendall(b"a word")
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(gone.wait(), 0.1)
            theirs.close()
            await asyncio.wait_for(gone.wait(), 60)
            hang_ups.forget(ours.fileno())
        hang_ups.close()

    asyncio.run(visit())


def test_a_path_is_there_only_when_it_answers(tmp_path: Path) -> None:
    path = tmp_path / ("a-long-name-" * 15) / "socket"
    path.parent.mkdir()
    with bind(path, Access(0o640)) as listening:
        assert not path.exists()
        assert not answers(path)
        publish(path)
        assert answers(path)
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
        assert path.stat().st_mode & 0o777 == 0o640
        with pytest.raises(FileExistsError, match="another daemon answers"):
            bind(path, Access(0o640))
        assert list(path.parent.iterdir()) == [path]
        assert listening.fileno() >= 0
    assert not answers(path)
    with bind(path, Access(0o640)):
        publish(path)
        assert answers(path)


def test_a_file_in_the_way_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="in the way"):
        bind(path, Access(0o600))
    assert path.read_text() == "mine"
