"""The bounds of peers and agents of the policy sockets: each one is reached, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from broker.client import connect
from broker.deciding.answering import MAX_RESPONSE
from broker.deciding.questions import MAX_REQUEST
from broker.prompter import MAX_ASKS, MAX_NOTES
from policy_engine import QubeFacts
from tests.broker.policy_rig import Rig, lines, rig_at

UUID = "11111111-1111-1111-1111-11111111111"
WORK = QubeFacts("work", f"{UUID}1", "AppVM", guivm="dom0")
MAIL = QubeFacts("mail", f"{UUID}2", "AppVM", guivm="dom0")
FAR = QubeFacts("far", f"{UUID}3", "AppVM", guivm="screen")
POLICY = "a.Allow * @anyvm mail allow\na.Ask * @anyvm mail ask\na.Loud * work mail allow notify=yes\n"
ASK = lines("work", "mail", "a.Allow")
QUESTION = lines("work", "mail", "a.Ask")
DENY, PATIENCE = b"result=deny", 0.6
EVALUATION = b"policy.EvalSimple+a.Allow q\0work\0mail"


def with_rig(folder: Path, act: Callable[[Rig], Awaitable[None]], **limits: Any) -> None:
    """A rig in which nothing stays open that ``act`` opened."""

    async def run() -> None:
        async with rig_at(folder, **limits) as rig:
            rig.policy(POLICY, WORK, MAIL, FAR)
            await rig.ask(ASK)
            before = open_descriptors()
            await act(rig)
            async with asyncio.timeout(30):
                while rig.sockets.connections or open_descriptors() > before:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def exchange(path: Path, pieces: list[bytes], pause: float = 0, end: bool = False) -> tuple[bytes, float]:
    """What comes back to the end, and the seconds that it took; raises ``ConnectionError`` at a reset."""
    started = time.monotonic()
    received = b""
    with connect(path, 30) as connection:
        with suppress(BrokenPipeError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        if end:
            connection.shutdown(socket.SHUT_WR)
        while more := connection.recv(65_536):
            received += more
    return received, time.monotonic() - started


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        pytest.param("policy.sock", [], id="silent"),
        pytest.param("policy.sock", [ASK[:-1]], id="half"),
        pytest.param("policy.sock", [ASK[n : n + 1] for n in range(50)], id="byte-by-byte"),
        pytest.param("policy.EvalSimple", [], id="silent-evaluation"),
        pytest.param("policy.EvalSimple", [EVALUATION], id="evaluation-without-end"),
    ],
)
def test_who_does_not_come_to_an_end_is_dropped(tmp_path: Path, name: str, pieces: list[bytes]) -> None:
    async def act(rig: Rig) -> None:
        late = asyncio.create_task(asyncio.to_thread(exchange, tmp_path / name, pieces, PATIENCE / 20))
        while not late.done():
            assert (await rig.ask(ASK)).startswith(b"user=DEFAULT\nresult=allow")
            await asyncio.sleep(0.02)
        received, seconds = late.result()
        assert received == b""
        assert seconds >= PATIENCE

    with_rig(tmp_path, act, patience=PATIENCE)


def test_who_is_slow_but_in_time_is_answered(tmp_path: Path) -> None:
    async def act(rig: Rig) -> None:
        pieces = [ASK[n : n + 1] for n in range(len(ASK))]
        received, _ = await asyncio.to_thread(exchange, tmp_path / "policy.sock", pieces, 0.005)
        assert b"result=allow" in received

    with_rig(tmp_path, act)


@pytest.mark.parametrize(
    ("request_bytes", "end", "answered"),
    [
        pytest.param(ASK + bytes(1), False, True, id="a-byte-more"),
        pytest.param(ASK + bytes(1_000_000), False, True, id="much-more"),
        pytest.param(ASK + bytes(1_000_000), True, True, id="much-more-and-its-end"),
        pytest.param(ASK + bytes(16_384 - len(ASK)), False, True, id="as-much-as-is-read-at-once"),
        pytest.param(b"x" * 2 * MAX_REQUEST, False, False, id="too-long"),
        pytest.param(b"x" * 2 * MAX_REQUEST, True, False, id="too-long-and-its-end"),
        pytest.param(b"x" * MAX_REQUEST + ASK, False, False, id="too-long-and-an-empty-line"),
    ],
)
def test_nobody_who_has_sent_all_is_reset(
    tmp_path: Path, request_bytes: bytes, end: bool, answered: bool
) -> None:
    async def act(rig: Rig) -> None:
        for _ in range(5):
            received, seconds = await asyncio.to_thread(
                exchange, tmp_path / "policy.sock", [request_bytes], 0, end
            )
            assert (b"result=allow" in received) is answered
            assert answered or not received
            assert seconds < 20

    with_rig(tmp_path, act)


def test_who_sends_without_an_end_is_cut(tmp_path: Path) -> None:
    """It gets its answer, and after some megabytes nobody reads on."""

    async def act(rig: Rig) -> None:
        def send() -> int:
            with connect(tmp_path / "policy.sock", 30) as connection:
                connection.sendall(ASK)
                for sent in range(1_000):
                    try:
                        connection.sendall(bytes(65_536))
                    except BrokenPipeError:
                        assert b"result=allow" in connection.recv(65_536)
                        return sent
            return 1_000

        assert await asyncio.to_thread(send) < 200

    with_rig(tmp_path, act)


@pytest.mark.parametrize("name", ["policy.sock", "policy.EvalSimple"])
def test_the_one_that_was_silent_longest_makes_room(tmp_path: Path, name: str) -> None:
    """Nine where eight have room; the other sockets have room of their own."""

    async def act(rig: Rig) -> None:
        with ExitStack() as stack:
            silent = []
            for _ in range(9):
                silent.append(stack.enter_context(connect(tmp_path / name, 30)))
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(silent[0].recv, 1) == b""
            assert rig.sockets.connections == 8
            assert b"result=allow" in await rig.ask(ASK)
            request = ASK if name == "policy.sock" else EVALUATION
            # On the same socket that question took the place of one more.
            first = 2 if name == "policy.sock" else 1
            for connection in silent[first:]:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                assert b"result=allow" in await asyncio.to_thread(connection.recv, 4_096)

    with_rig(tmp_path, act, max_connections=8)


def test_questions_for_the_user_keep_their_places(tmp_path: Path) -> None:
    async def act(rig: Rig) -> None:
        rig.agent.answer_after = asyncio.Event()
        rig.agent.answer = b"allow:mail"
        asked = [asyncio.create_task(rig.ask(QUESTION)) for _ in range(8)]
        await until(lambda: len(rig.agent.calls) == 8)
        refused = b""
        with suppress(ConnectionError):
            refused = await rig.ask(ASK)
        assert refused == b""
        rig.agent.answer_after.set()
        assert all(b"result=allow" in answer for answer in await asyncio.gather(*asked))

    with_rig(tmp_path, act, max_connections=8)


def test_thousands_are_open_while_others_are_answered(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 5_000:
        pytest.skip(f"RLIMIT_NOFILE: {hard} descriptors are too few for 2,000 connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5_000), hard))

    async def act(rig: Rig) -> None:
        with ExitStack() as stack:
            for number in range(2_000):
                name = "policy.EvalSimple" if number % 2 else "policy.sock"
                stack.enter_context(connect(tmp_path / name, 30)).sendall(b"source=work\n"[: number % 13])
                if number % 20 == 0:
                    assert b"result=allow" in await rig.ask(ASK)
                    assert await rig.ask(lines("work", "far", "a.Allow")) == DENY
                    assert await rig.ask(EVALUATION, True, "policy.EvalSimple") == b"result=allow\n"
            await until(lambda: rig.sockets.connections == 2_000)

    try:
        with_rig(tmp_path, act)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_source_can_have_only_so_many_questions_waiting(tmp_path: Path) -> None:
    """And a caller that hangs up does not make room: the user still has its question."""

    async def act(rig: Rig) -> None:
        rig.agent.answer_after = asyncio.Event()
        with ExitStack() as stack:
            for _ in range(MAX_ASKS):
                stack.enter_context(connect(tmp_path / "policy.sock", 30)).sendall(QUESTION)
            await until(lambda: len(rig.agent.calls) == MAX_ASKS)
        assert await rig.ask(QUESTION) == DENY
        assert b"result=allow" in await rig.ask(ASK)
        other = asyncio.create_task(rig.ask(lines("mail", "mail", "a.Ask")))
        rig.agent.answer_after.set()
        await other
        await until(lambda: rig.sockets.connections == 0)
        rig.agent.answer = b"allow:mail"
        assert b"result=allow" in await rig.ask(QUESTION)

    with_rig(tmp_path, act)


def test_notifications_that_nobody_takes_are_dropped(tmp_path: Path) -> None:
    async def act(rig: Rig) -> None:
        rig.agent.answer_after = asyncio.Event()
        for _ in range(MAX_NOTES + 20):
            assert await rig.ask(lines("work", "work", "a.Other")) == DENY
        await until(lambda: len(rig.agent.calls) == MAX_NOTES)
        rig.agent.answer_after.set()
        await rig.settled()
        assert len(rig.agent.calls) == MAX_NOTES

    with_rig(tmp_path, act)


@pytest.mark.parametrize("over", [0, 1])
def test_a_response_that_the_c_daemon_would_not_take_is_a_denial(tmp_path: Path, over: int) -> None:
    async def act(rig: Rig) -> None:
        async def response(length: int) -> bytes:
            remote = QubeFacts("remote", f"{UUID}4", "RemoteVM", relayvm="mail", transport_rpc="t" * length)
            rig.policy("a.Allow * work remote allow\n", WORK, MAIL, remote)
            return await rig.ask(lines("work", "remote", "a.Allow"))

        rest = len(await response(100)) - 100
        longest = MAX_RESPONSE - rest
        received = await response(longest + over)
        assert (received == DENY) if over else (len(received) == MAX_RESPONSE)

    with_rig(tmp_path, act)


CLIENTS = {
    "hangs": "exec sleep 60",
    "hangs-after-its-answer": "printf allow:mail; exec sleep 60",
    "keeps-its-output-open": "cat > /dev/null; printf allow:mail; sleep 3 & exit 0",
    "is-endless": "exec cat /dev/zero",
    "fails": "cat > /dev/null; exit 1",
    "fails-after-a-yes": "cat > /dev/null; printf allow:mail; exit 1",
    "reads-nothing": "exit 0",
    "is-killed": "kill -9 $$",
    "says-half": "cat > /dev/null; printf allow:mai",
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in CLIENTS.items()])
def test_a_client_that_does_not_get_a_yes_is_a_no(tmp_path: Path, body: str) -> None:
    async def act(rig: Rig) -> None:
        (tmp_path / "client").write_text(f"#!/bin/sh\n{body}\n")
        started = time.monotonic()
        answers = await asyncio.gather(*(rig.ask(lines("far", "mail", "a.Ask")) for _ in range(4)))
        assert answers == [DENY] * 4
        assert time.monotonic() - started < 20
        await rig.settled()

    with_rig(tmp_path, act, agent_patience=PATIENCE)


@pytest.mark.parametrize("half", [b"", b"allow:mail"], ids=["silent", "half"])
def test_an_agent_that_does_not_end_is_a_no(tmp_path: Path, half: bytes) -> None:
    async def act(rig: Rig) -> None:
        rig.agent.answer, rig.agent.answer_after = half, asyncio.Event()
        rig.agent.early = True
        started = time.monotonic()
        assert await rig.ask(QUESTION) == DENY
        assert time.monotonic() - started >= PATIENCE
        rig.agent.answer_after.set()

    with_rig(tmp_path, act, agent_patience=PATIENCE)


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not reached():
            await asyncio.sleep(0.005)
