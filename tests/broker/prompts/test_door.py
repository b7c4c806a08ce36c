"""The agent's socket: whole conversations, and those that are none."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from broker.prompts.door import Door
from broker.prompts.messages import MAX_MESSAGE
from tests.broker.prompts.agent_rig import LIMIT, Agent, ask, device, notify, received, visit


@pytest.mark.parametrize(
    ("said", "answer"),
    [("vault", b"allow:vault"), ("personal", b"allow:personal"), (None, b"deny")],
    ids=["default", "other", "deny"],
)
def test_a_question_and_its_answer(tmp_path: Path, said: str | None, answer: bytes) -> None:
    async def guest(agent: Agent) -> None:
        asking = asyncio.create_task(agent.send(ask()))
        await agent.person.until("? work qubes.Filecopy")
        agent.person.say(said)
        assert await asking == answer

    visit(tmp_path, guest)


def test_a_question_about_a_device_and_its_answer(tmp_path: Path) -> None:
    async def guest(agent: Agent) -> None:
        asking = asyncio.create_task(agent.send(device()))
        await agent.person.until("? sys-usb Shall this device be attached?")
        agent.person.say("work")
        assert await asking == b"allow:work"

    visit(tmp_path, guest)


def test_a_note_has_an_empty_answer(tmp_path: Path) -> None:
    async def guest(agent: Agent) -> None:
        assert await agent.send(notify()) == b""
        await agent.person.until("! deny work 0")

    visit(tmp_path, guest)


def test_a_message_may_come_in_pieces(tmp_path: Path) -> None:
    async def guest(agent: Agent) -> None:
        loop = asyncio.get_running_loop()
        with agent.connected() as peer:
            for byte in ask():
                await loop.sock_sendall(peer, bytes((byte,)))
            await asyncio.sleep(0)
            assert agent.person.seen == []
            peer.shutdown(socket.SHUT_WR)
            await agent.person.until("? work qubes.Filecopy")
            agent.person.say("vault")
            assert await received(peer) == b"allow:vault"

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"policy.Ask dom0\0nonsense", id="bad-json"),
        pytest.param(ask().replace(b"policy.Ask", b"policy.Bid"), id="unknown-service"),
        pytest.param(ask(source="a b"), id="source"),
        pytest.param(ask(service="a b"), id="service"),
        pytest.param(b"x" * (MAX_MESSAGE + 1), id="too-long"),
    ],
)
def test_what_is_no_message_is_closed_and_the_next_is_heard(
    tmp_path: Path, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Who says nothing at all only looks whether somebody is there."""

    async def guest(agent: Agent) -> None:
        assert await agent.send(said) == b""
        assert ("closed without an answer" in caplog.text) is (said != b"")
        assert await agent.send(notify()) == b""
        await agent.person.until("! deny work 0")

    visit(tmp_path, guest)


def test_a_message_that_does_not_end_is_closed(tmp_path: Path) -> None:
    async def guest(agent: Agent) -> None:
        async with asyncio.timeout(LIMIT):
            with agent.connected() as peer:
                await asyncio.get_running_loop().sock_sendall(peer, ask())
                assert await received(peer) == b""
        assert agent.person.seen == []

    visit(tmp_path, guest, patience=0.1)


def test_a_question_may_take_longer_than_its_message(tmp_path: Path) -> None:
    async def guest(agent: Agent) -> None:
        asking = asyncio.create_task(agent.send(ask()))
        await agent.person.until("? work qubes.Filecopy")
        await asyncio.sleep(0.2)
        agent.person.say("vault")
        assert await asking == b"allow:vault"

    visit(tmp_path, guest, patience=0.1)


def test_whoever_hangs_up_takes_the_question_back(tmp_path: Path) -> None:
    async def guest(agent: Agent) -> None:
        with agent.connected() as peer:
            await asyncio.get_running_loop().sock_sendall(peer, ask())
            peer.shutdown(socket.SHUT_WR)
            await agent.person.until("? work qubes.Filecopy")
        await agent.person.until("gone: whoever asked has gone")
        assert agent.door.connections == set()

    visit(tmp_path, guest)


def test_whoever_hangs_up_before_the_answer_is_heard_harms_nobody(tmp_path: Path) -> None:
    async def guest(agent: Agent) -> None:
        with agent.connected() as peer:
            await asyncio.get_running_loop().sock_sendall(peer, ask())
            peer.shutdown(socket.SHUT_WR)
            await agent.person.until("? work qubes.Filecopy")
            peer.close()
            # Before the loop has looked again.
            agent.person.say("vault")
        asking = asyncio.create_task(agent.send(ask(source="other")))
        await agent.person.until("? other qubes.Filecopy")
        agent.person.say("vault")
        assert await asking == b"allow:vault"

    visit(tmp_path, guest)


def test_silent_connections_give_way(tmp_path: Path) -> None:
    async def guest(agent: Agent) -> None:
        silent = [agent.connected() for _ in range(10)]
        asking = asyncio.create_task(agent.send(ask()))
        await agent.person.until("? work qubes.Filecopy")
        assert len(agent.door.connections) <= 3
        for peer in silent:
            peer.close()
        agent.person.say("vault")
        assert await asking == b"allow:vault"

    visit(tmp_path, guest, max_connections=3)


def test_an_agent_that_ends_answers_nobody(tmp_path: Path) -> None:
    async def guest(agent: Agent) -> None:
        asking = [asyncio.create_task(agent.send(ask(source=source))) for source in "ab"]
        await agent.person.until("? a qubes.Filecopy")
        agent.end()
        assert [await call for call in asking] == [b"", b""]
        await agent.person.until("gone: the agent ends")
        assert not agent.path.exists()

    visit(tmp_path, guest)


def test_only_one_agent_is_on_a_socket_and_a_dead_ones_is_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "agent.sock"))

    async def guest(agent: Agent) -> None:
        assert stat.S_IMODE(agent.path.stat().st_mode) == 0o600
        another = Door(agent.desk)
        with pytest.raises(FileExistsError):
            another.open(agent.path, agent.access)
        another.close()
        assert await agent.send(notify()) == b""

    visit(tmp_path, guest)
