"""A dispatcher on a real core in this process, with the methods that a test brings."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from broker.agent import Agents
from broker.allowances import allowance_of, is_kept
from broker.asking import Asking
from broker.audit import AuditLog
from broker.catalogue import catalogue
from broker.consent import Consents
from broker.contract import Methods
from broker.dispatch import Dispatcher
from broker.facts import Facts
from broker.identity import Dom0Door, Peer, QubeDoor
from broker.judge import PolicyInForce
from broker.preparation import Preparation
from broker.prompter import Prompter
from broker.streams import Listener, Streams
from policy_engine import Loader, MemorySource
from qubesd.api.call import Call
from qubesd.api.method import (
    Access,
    Command,
    Guard,
    Method,
    Need,
    Parser,
    Scope,
    Unguarded,
)
from qubesd.api.values import Unspoken
from qubesd.config import rooted
from qubesd.core.core import Core
from qubesd.core.opening import open_core
from qubesd.model.state import Klass, Qube

UUID = "00000001-0000-4000-8000-000000000000"
POLICY = """\
test.Hidden * alice dom0 deny
test.Read +shown alice dom0 allow target=dom0
test.Read * alice dom0 deny
* * alice dom0 allow target=dom0
* * alice @tag:mine allow target=dom0
"""


UNGUARDED = Unguarded("a test's own")


def method(
    name: str, handler: Callable[[Core, Command], Any], guard: Guard = UNGUARDED, parse: Parser | None = None
) -> Method:
    return Method(
        name,
        handler,
        Scope.GLOBAL,
        Access.READ,
        guard,
        argument=Need.OPTIONAL,
        payload=Need.OPTIONAL,
        parse=parse,
        values=Unspoken("for the test"),
    )


@dataclass
class Desk:
    """A dispatcher on a core with dom0, alice, hers and theirs; calls come from alice's own door."""

    core: Core
    dispatcher: Dispatcher
    policies: PolicyInForce
    streams: Streams
    audit: Path
    peer: Peer
    methods: Methods

    async def take(
        self, service: str, target: str = "dom0", argument: str = "", payload: bytes = b"", source: str = ""
    ) -> bytes | Listener:
        door = Dom0Door(0, None) if source else QubeDoor(UUID, 0)
        call = Call(service, argument, source or "ignored", target, payload)
        answer = self.dispatcher.take(call, door, self.peer, self.methods)
        return answer if isinstance(answer, bytes | Listener) else await answer

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit.read_text().splitlines()]


@asynccontextmanager
async def desk(
    root: Path, methods: Methods, strict: bool = False, policy: str = POLICY
) -> AsyncIterator[Desk]:
    source = MemorySource(
        {"/run/qubes/policy.d/README": b"", "/etc/qubes/policy.d/10.policy": policy.encode()}
    )
    async with open_core(rooted(root), create=True) as core:
        system = core.system
        for number, (name, tag) in enumerate((("alice", "x"), ("hers", "mine"), ("theirs", "x")), 1):
            uuid = f"{number:08x}-0000-4000-8000-000000000000"
            system = system.with_qube(
                Qube(name, number, uuid, Klass.STANDALONE, {"label": "red"}, tags=frozenset((tag,)))
            )
        core.change(system, ["alice", "hers", "theirs"])
        policies = PolicyInForce(
            Loader(source, catalogue=partial(catalogue, True)).load, keep_last_good=False
        )
        policies.reload()
        facts = Facts(core)
        streams = Streams(core, policies, facts)
        core.budgets.allowance_of = partial(allowance_of, policies, facts)
        core.creation.is_kept = partial(is_kept, policies, facts)
        audit = AuditLog(root / "audit", 1_000_000, 2)
        preparation = Preparation(core, strict, frozenset())
        asking = Asking(Prompter(Agents(root / "agents", str(root / "client"))), Consents())
        dispatcher = Dispatcher(
            core, policies, facts, streams, audit, preparation, asking, trust_consent=False
        )
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield Desk(core, dispatcher, policies, streams, root / "audit", Peer(ours), methods)
        audit.close()


def visit(
    root: Path, methods: Methods, guest: Callable[[Desk], Coroutine[Any, Any, None]], **how: Any
) -> None:
    async def stay() -> None:
        async with desk(root, methods, **how) as found:
            await guest(found)

    asyncio.run(stay())
