"""The policy sockets in this process, with real sockets, and an agent that says what it was told to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.agent import Agents
from broker.deciding.answering import Answering, Refused
from broker.deciding.sockets import MAX_CONNECTIONS, PolicySockets
from broker.judge import PolicyInForce
from broker.prompter import Prompter
from broker.sockets import Access, short_path
from policy_engine import MemorySource, PolicySource, QubeFacts, World, load

PATIENCE = 30.0
"""Seconds after which a test that waits fails."""

CLIENT = """#!/bin/sh
[ "$1" = -d ] && [ $# = 3 ] || exit 2
service=${3#DEFAULT:QUBESRPC }
printf '%s %s %s\\n' "$2" "${service% dom0}" "$(cat)" >> "$0.calls"
case $service in *Ask*) cat "$0.answer";; esac
"""
"""``qrexec-client`` to a GUI qube whose agent answers with the content of a file."""


@dataclass
class Agent:
    """``answer`` is said to every question; ``None`` breaks the connection off. It is said once
    ``answer_after`` is set, or before that if ``early``, and then only its end waits. ``calls``
    are in order."""

    client: Path
    answer: bytes | None = b"deny"
    answer_after: asyncio.Event | None = None
    early: bool = False
    calls: list[dict[str, Any]] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def say(self, answer: str) -> None:
        self.answer = answer.encode("ascii")
        Path(f"{self.client}.answer").write_bytes(self.answer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header, _, message = (await reader.read()).partition(b"\0")
        service = header.split()[0].decode("ascii")
        self.headers.append(header)
        self.raw.append(message)
        self.calls.append({"guivm": "dom0", "service": service, "params": json.loads(message)})
        if self.answer_after is not None and not self.early:
            await self.answer_after.wait()
        if self.answer is not None and service == "policy.Ask":
            writer.write(self.answer)
        if self.answer_after is not None:
            await self.answer_after.wait()
        writer.close()

    def collect(self) -> list[dict[str, Any]]:
        """What was called since the last time, in GUI qubes too."""
        calls, self.calls = self.calls, []
        told = Path(f"{self.client}.calls")
        for line in told.read_text().splitlines() if told.exists() else ():
            screen, service, message = line.split(" ", 2)
            calls.append({"guivm": screen, "service": service, "params": json.loads(message)})
        told.unlink(missing_ok=True)
        return calls


@dataclass
class Rig:
    """``sockets`` below ``root``, and the agents that they ask."""

    root: Path
    sockets: PolicySockets
    agent: Agent
    agents: Agents
    refused: Refused | None = None

    def judge_by(self, source: PolicySource, world: World) -> None:
        """Decide by this policy in this world from now on."""
        policies = PolicyInForce(lambda: load(source), keep_last_good=False)
        policies.reload()
        self.sockets.answering = Answering(policies, lambda: world, Prompter(self.agents), self.refused)

    def policy(self, text: str, *qubes: QubeFacts) -> None:
        self.judge_by(policy_of(text), World.of((DOM0, *qubes)))

    async def ask(self, untrusted_request: bytes, end: bool = False, socket: str = "policy.sock") -> bytes:
        """What comes back; ``end`` closes the sending direction, which the qrexec daemon never does."""
        return await exchange(self.root / socket, untrusted_request, end)

    async def settled(self) -> None:
        """Wait until the notifications have been sent."""
        async with asyncio.timeout(PATIENCE):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)


DOM0 = QubeFacts("dom0", "00000000-0000-0000-0000-000000000000", "AdminVM", power_state="Running")


def policy_of(text: str) -> MemorySource:
    return MemorySource(
        {"/etc/qubes/policy.d/10-test.policy": text.encode()},
        ["/run/qubes/policy.d", "/etc/qubes-rpc/policy"],
    )


def lines(source: str, target: str, service: str, **more: str) -> bytes:
    """A request as the C qrexec daemon sends it, with further keys before the target."""
    pairs = {"source": source, **more, "intended_target": target, "service_and_arg": service}
    return "".join(f"{key}={value}\n" for key, value in pairs.items()).encode() + b"\n"


async def exchange(path: Path, request: bytes, end: bool) -> bytes:
    async with asyncio.timeout(PATIENCE):
        with short_path(path) as name:
            reader, writer = await asyncio.open_unix_connection(name)
        writer.write(request)
        if end:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
    return answer


@asynccontextmanager
async def rig_at(
    root: Path,
    patience: float = PATIENCE,
    max_connections: int = MAX_CONNECTIONS,
    agent_patience: float = PATIENCE,
) -> AsyncIterator[Rig]:
    """Denies everything until it is told by which policy to judge."""
    client = root / "client"
    client.write_text(CLIENT)
    client.chmod(0o755)
    agent, agents = Agent(client), Agents(root, str(client), agent_patience, agent_patience)
    agent.say("deny")
    servers = []
    for service in ("policy.Ask", "policy.Notify"):
        with short_path(root / service) as name:
            servers.append(await asyncio.start_unix_server(agent.serve, name))
    policies = PolicyInForce(lambda: load(policy_of("")), keep_last_good=False)
    answering = Answering(policies, lambda: World.of((DOM0,)), Prompter(agents))
    sockets = PolicySockets(answering, patience, max_connections)
    sockets.open_all(root / "policy.sock", root / "policy.EvalSimple", root / "policy.EvalGUI", Access(0o600))
    try:
        yield Rig(root, sockets, agent, agents)
    finally:
        await sockets.close()
        for server in servers:
            server.close()
