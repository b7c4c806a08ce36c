"""A core, a dispatcher and the policy daemon's half of one qubesd in this process, in front of a user whose
answers are drawn."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from broker.agent import Agents
from broker.asking import Asking
from broker.audit import AuditLog
from broker.catalogue import catalogue
from broker.consent import Consents
from broker.deciding.answering import Answering
from broker.deciding.beforehand import Beforehand
from broker.deciding.questions import Question
from broker.dispatch import Dispatcher
from broker.facts import Facts
from broker.identity import Dom0Door, Peer, QubeDoor
from broker.judge import PolicyInForce
from broker.preparation import Preparation
from broker.prompter import Prompter
from broker.sockets import short_path
from broker.streams import Listener, Streams
from policy_engine import Asked, Loader, MemorySource, PolicyError, Request, decide
from qubesd.api.call import Call
from qubesd.api.imports import PROGRAMS
from qubesd.api.method import Command, Method
from qubesd.api.table import METHODS
from qubesd.config import rooted
from qubesd.core.core import Core
from qubesd.core.opening import open_core
from qubesd.model.state import DOM0

CALLERS, TARGETS, NETS = ("ann", "ben"), ("t1", "t2"), ("n1", "n2")

DIALECT = """\
!dialect delegation-1
admin.vm.property.Set +netvm @tag:caller @tag:owned ask value=(@tag:net|none)
admin.vm.feature.Set|admin.vm.notes.Set * @tag:caller @tag:owned ask
admin.vm.feature.Get|admin.vm.Start|admin.vm.Kill * @tag:caller @tag:owned ask
admin.vm.CurrentState|admin.vm.firewall.Reload * @tag:caller @tag:owned ask remember=10m
"""
STOCK = """\
admin.vm.CurrentState * @tag:caller @anyvm ask target=dom0
admin.vm.feature.Set * @tag:caller @anyvm ask target=dom0
admin.vm.Start * ann @tag:owned ask target=dom0
"""
POLICIES = (
    DIALECT,
    STOCK,
    f"{DIALECT}qubes.Never * * @anyvm deny\n",
    f"{STOCK}# the same in other bytes\n",
    DIALECT.replace("@tag:caller", "ann"),
    "* * * * deny\n",
    "broken\n",
)
REMEMBERED = frozenset({"admin.vm.CurrentState", "admin.vm.firewall.Reload"})
"""What the dialect's policies remember a yes to."""

Run = tuple[str, str]
"""The uuids of caller and target of a call whose handler was entered."""


@dataclass(slots=True)
class Waiting:
    """A question that waits for the user: what it says, and where the answer goes."""

    says: Mapping[str, Any]
    answer: asyncio.Future[str]


class Made(NamedTuple):
    """A call on its way."""

    number: int
    call: Call


_made: ContextVar[Made] = ContextVar("made")


@dataclass
class Household:
    """``runs`` has the uuids of caller and target for each call that was carried out, by its number, and
    ``waiting`` the questions that the user has not answered."""

    core: Core
    policies: PolicyInForce
    facts: Facts
    dispatcher: Dispatcher
    answering: Answering
    peer: Peer
    methods: Mapping[str, Method]
    runs: dict[int, Run] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)
    policy: str = ""
    now: float = 0.0
    calls: int = 0

    def adopt(self, policy: str) -> None:
        """Put another policy in force, or none where it does not load."""
        self.policy = policy
        self.policies.reload()

    def uuid(self, name: str) -> str | None:
        qube = self.core.system.qubes.get(name)
        return None if qube is None else qube.uuid

    def asks_about(self, call: Call) -> bool:
        """Whether a rule asks about such a call now."""
        policy = self.policies.now
        if isinstance(policy, PolicyError):
            return False
        request = Request(call.service, "+" + call.argument, call.source, call.target)
        return isinstance(decide(policy, request, self.facts.world()), Asked)

    def begin(self, call: Call, own: bool) -> tuple[Made, asyncio.Task[bytes]]:
        """Make a call, by its qube's own socket or as the qrexec daemon hands it over."""
        self.calls += 1
        made = Made(self.calls, call)
        door = QubeDoor(self.uuid(call.source) or "", 0) if own else Dom0Door(0, None)
        return made, asyncio.create_task(self._carry(made, door))

    def ask_first(self, call: Call) -> asyncio.Task[bool]:
        """Have the qrexec daemon ask whether the call may be made."""
        request = Request(call.service, "+" + call.argument, call.source, call.target)
        return asyncio.create_task(self._allowed(Question(request)))

    async def dom0(self, service: str, target: str = DOM0, argument: str = "", payload: bytes = b"") -> bytes:
        """A call of dom0's own."""
        answer = self.dispatcher.take(
            Call(service, argument, DOM0, target, payload), Dom0Door(0, None), self.peer, METHODS
        )
        reply = answer if isinstance(answer, bytes | Listener) else await answer
        assert isinstance(reply, bytes)
        return reply

    async def settle(self, task: asyncio.Task[Any]) -> Waiting | None:
        """Wait until the task has ended, or has put a question: that one."""
        known = list(self.waiting)
        while not task.done():
            if len(self.waiting) > len(known):
                return self.waiting[-1]
            await asyncio.sleep(0)
        return None

    async def _carry(self, made: Made, door: Dom0Door | QubeDoor) -> bytes:
        _made.set(made)
        answer = self.dispatcher.take(made.call, door, self.peer, self.methods)
        reply = answer if isinstance(answer, bytes | Listener) else await answer
        assert isinstance(reply, bytes)
        return reply

    async def _allowed(self, question: Question) -> bool:
        answer = self.answering.answer(question)
        text = answer if answer is None or isinstance(answer, str) else await answer
        return text is not None and "result=allow" in text.split("\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The user's agent."""
        header, _, message = (await reader.read()).partition(b"\0")
        if header.startswith(b"policy.Ask "):
            asked = Waiting(json.loads(message), asyncio.get_running_loop().create_future())
            self.waiting.append(asked)
            writer.write((await asked.answer).encode("ascii"))
        writer.close()

    def record(self, method: Method) -> Method:
        """The method, whose handler also takes down that it was entered."""

        def handler(core: Core, command: Command) -> Any:
            self.runs[_made.get().number] = (command.caller.uuid, command.target.uuid)
            return method.handler(core, command)

        return replace(method, handler=handler)


@asynccontextmanager
async def household(root: Path) -> AsyncIterator[Household]:
    """A household below ``root``, with the qubes and without a policy."""
    async with open_core(rooted(root), create=True) as core:
        found: Household

        def load() -> Any:
            files = {
                "/run/qubes/policy.d/README": b"",
                "/etc/qubes/policy.d/10.policy": found.policy.encode(),
            }
            return Loader(MemorySource(files), catalogue=partial(catalogue, True)).load()

        policies, facts = PolicyInForce(load, keep_last_good=False), Facts(core)
        streams, audit = Streams(core, policies, facts), AuditLog(root / "audit", 1 << 20, 1)
        prompter = Prompter(Agents(root, str(root / "no-client")))
        preparation = Preparation(core, False, frozenset())
        asking = Asking(prompter, Consents(lambda: found.now))
        dispatcher = Dispatcher(
            core, policies, facts, streams, audit, preparation, asking, trust_consent=False
        )
        beforehand = Beforehand(core, METHODS, PROGRAMS, preparation, asking)
        answering = Answering(policies, facts.world, prompter, None, beforehand)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            found = Household(core, policies, facts, dispatcher, answering, Peer(ours), {})
            found.methods = {name: found.record(method) for name, method in METHODS.items()}
            servers = []
            for name in ("policy.Ask", "policy.Notify"):
                with short_path(root / name) as path:
                    servers.append(await asyncio.start_unix_server(found.serve, path))
            yield found
            for server in servers:
                server.close()
            await answering.close()
        audit.close()
