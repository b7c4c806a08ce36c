"""The policy daemon's end and the person's: ``Agents`` asks the agent that runs in a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from broker.agent import Agents, Note
from policy_engine import Asked, QubeFacts, Request, World, decide, load
from qubesd.core.device_questions import Question
from tests.broker.policy_rig import DOM0, policy_of
from tests.broker.prompts.agent_rig import LIMIT
from tests.broker.prompts.process_rig import Typist, typist

WORLD = World.of(
    (
        DOM0,
        QubeFacts("work", "00000001-0000-4000-8000-000000000000", "AppVM", guivm="dom0", icon="appvm-red"),
        QubeFacts("vault", "00000002-0000-4000-8000-000000000000", "AppVM", icon="appvm-black"),
    )
)
REQUEST = Request.of("qubes.Filecopy+x", "work", "@default")


def with_agent(
    folder: Path, story: Callable[[Typist, Agents], Coroutine[Any, Any, None]], patience: float
) -> None:
    services = folder / "services"
    services.mkdir()
    with typist(folder) as typing:
        for service in ("policy.Ask", "policy.Notify", "device-agent.GUI"):
            (services / service).symlink_to(typing.path)
        typing.sees("Ctrl-C ends this.")
        asyncio.run(story(typing, Agents(services, ask_patience=patience)))


def asked() -> Asked:
    policy = load(policy_of("qubes.Filecopy * work @anyvm ask default_target=vault\n"))
    decision = decide(policy, REQUEST, WORLD)
    assert isinstance(decision, Asked)
    return decision


def test_the_daemon_gets_the_persons_answer(tmp_path: Path) -> None:
    async def story(typing: Typist, agents: Agents) -> None:
        asking = asyncio.create_task(agents.ask("dom0", asked(), REQUEST, WORLD))
        await asyncio.to_thread(typing.sees, "Enter for 1, d denies: ")
        assert "qubes.[Filecopy]" in typing.screen
        assert "argument          | +x" in typing.screen
        typing.types(b"1\r")
        assert await asking == "allow:vault"
        await agents.tell(Note("dom0", "allow", "qubes.Filecopy", "+x", "work", "vault"))
        await asyncio.to_thread(typing.sees, "allowed: qubes.Filecopy+x from work to vault")

    with_agent(tmp_path, story, LIMIT)


def test_the_daemon_asks_about_a_device(tmp_path: Path) -> None:
    async def story(typing: Typist, agents: Agents) -> None:
        question = Question("dom0", "sys-usb", "Big Disk", "sda", ("work",), {"sys-usb": "x", "work": "y"})
        asking = asyncio.create_task(agents.place(question))
        await asyncio.to_thread(typing.sees, "1 allows, Enter for 1, d denies: ")
        assert "device            | Big Disk" in typing.screen
        typing.types(b"1\r")
        assert await asking == "allow:work"

    with_agent(tmp_path, story, LIMIT)


def test_a_daemon_that_waits_no_longer_takes_its_question_back(tmp_path: Path) -> None:
    async def story(typing: Typist, agents: Agents) -> None:
        assert await agents.ask("dom0", asked(), REQUEST, WORLD) is None
        await asyncio.to_thread(typing.sees, "Denied: whoever asked has gone.")

    with_agent(tmp_path, story, 0.3)
