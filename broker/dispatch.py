"""From a call to its answer: who calls, what the policy says, the method's contract, the user's word where
the policy asks for it, the handler, the guard.

Nothing is looked up for a judged caller before the policy has spoken on the names as they were given. What
waits for nothing is answered in the same turn of the loop; the rest is a coroutine that ends in the same kind
of answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from broker.asking import Asking
from broker.audit import AuditLog
from broker.case import Case
from broker.consent import Wish
from broker.contract import Methods, judged_service
from broker.facts import Facts
from broker.identity import Door, Peer
from broker.judge import UNJUDGED, Ground, PolicyInForce
from broker.preparation import Preparation, Prepared
from broker.streams import Listener, Streams
from broker.visible import applies, shown
from broker.wire import encode_content, encode_error, encode_refusal
from policy_engine import Allowed, Asked
from qubesd.api.call import Call
from qubesd.api.method import Command, EventStream, Method, Reply, Rows
from qubesd.errors import OverLimit, PermissionDenied, QubesError
from qubesd.model.state import Klass, Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core

_log = logging.getLogger(__name__)

Answer = bytes | Listener
"""The whole reply (no byte at all: close without one), or a stream of events."""

CLOSE = b""


class Way(NamedTuple):
    """How a call came in, and what can be called there."""

    door: Door
    peer: Peer
    methods: Methods


class Dispatcher:
    """Answers calls on one core.

    Args:
        asking: where users are asked.
        trust_consent: on dom0's socket an ``ask`` has been put to the user by the policy daemon in front.
    """

    def __init__(
        self,
        core: Core,
        policies: PolicyInForce,
        facts: Facts,
        streams: Streams,
        audit: AuditLog,
        preparation: Preparation,
        asking: Asking,
        *,
        trust_consent: bool,
    ) -> None:
        self._core = core
        self._policies = policies
        self._facts = facts
        self._streams = streams
        self._audit = audit
        self._preparation = preparation
        self._asking = asking
        self._trust_consent = trust_consent
        self._counts: dict[str, int] = {}

    def take(
        self, call: Call, door: Door, peer: Peer, methods: Methods
    ) -> Answer | Coroutine[Any, Any, Answer]:
        """Carry out a call that came through this door, or refuse it. Never raises for what a caller sent."""
        started, begun = time.time(), time.perf_counter()
        try:
            caller = door.caller(call.source, peer, self._core.system)
        except QubesError as error:
            self._audit.write(Case(call, call.source, 0, started, begun).record(error.wire_name))
            return encode_error(error)
        case = Case(call, caller.name, self._count(caller), started, begun, caller.uuid)
        return self._carry_out(case, Way(door, peer, methods), caller, None)

    def _carry_out(
        self, case: Case, way: Way, caller: Qube, agreed: Wish | None
    ) -> Answer | Coroutine[Any, Any, Answer]:
        """Judge the call and have it answered.

        Args:
            agreed: what the user said yes to when asked about this call, which is then judged anew, and must
                be just that still; ``None`` before anybody was asked.
        """
        call, door, methods = case.call, way.door, way.methods
        ground = None
        service = judged_service(methods, call)
        if door.judges(caller) or (service is not call.service and caller.klass is not Klass.ADMIN):
            ground = Ground(self._policies.now, self._facts.world(), caller.name)
            case.verdict = ground.judge(service, call.argument, call.target)
            if not case.verdict.allowed or (
                self._preparation.is_strict(case.verdict) and self._core.system.find(call.target) is None
            ):
                return self._refused(case)
        try:
            prepared = self._preparation.prepare(methods, call, service, caller, ground, case.verdict)
            case.verdict = prepared.verdict
            if not case.verdict.allowed:
                return self._refused(case)
            if ground is not None and case.verdict.asked is not None:
                wish = self._unsaid(case, door, prepared, service, ground, case.verdict.asked, agreed)
                if wish is not None:
                    if agreed is not None:
                        return self._changed(case)
                    return self._ask(case, way, prepared, service, ground, case.verdict.asked, wish)
            method, command = prepared.method, prepared.command
            reply = method.handler(prepared.core, command)
        except Exception as error:
            return self._failed(case, error)
        if isinstance(reply, Awaitable):
            return self._wait(case, reply, method, command, ground)
        return self._answer(case, reply, method, command, ground)

    def _unsaid(
        self,
        case: Case,
        door: Door,
        prepared: Prepared,
        service: str,
        ground: Ground,
        asked: Asked,
        agreed: Wish | None,
    ) -> Wish | None:
        """What the user has not said yes to yet; ``None`` where the call can be carried out."""
        if self._trust_consent and door.vouches:
            case.verdict = case.verdict.settled(True, "asked by the policy daemon in front")
            return None
        wish = self._asking.wish(prepared, case.call, service)
        if agreed not in (None, wish) or not self._asking.has_agreed(wish, ground, asked):
            return wish
        case.verdict = case.verdict.settled(True, "the user said yes")
        return None

    async def _ask(
        self,
        case: Case,
        way: Way,
        prepared: Prepared,
        service: str,
        ground: Ground,
        asked: Asked,
        wish: Wish,
    ) -> Answer:
        """Ask the user, and carry the call out on a yes."""
        call = case.call
        try:
            decision = await self._asking.ask(prepared, call, service, ground, asked)
        except asyncio.CancelledError:
            self._audit.write(case.record("broken"))
            raise
        if not isinstance(decision, Allowed):
            case.verdict = case.verdict.settled(False, f"the user was asked: {decision.kind}")
            return self._refused(case)
        number = self._asking.agree(wish, ground, asked)
        try:
            caller = way.door.caller(call.source, way.peer, self._core.system)
            if caller.uuid != case.uuid:
                # Another qube has the name of the one that called.
                return self._changed(case)
            answer = self._carry_out(case, way, caller, wish)
        except QubesError as error:
            return self._failed(case, error)
        finally:
            self._asking.withdraw(wish, number)
        return answer if isinstance(answer, bytes | Listener) else await answer

    async def _wait(
        self,
        case: Case,
        reply: Awaitable[Reply],
        method: Method,
        command: Command,
        ground: Ground | None,
    ) -> Answer:
        try:
            done = await reply
        except asyncio.CancelledError:
            self._audit.write(case.record("broken"))
            raise
        except Exception as error:
            return self._failed(case, error)
        return self._answer(case, done, method, command, ground)

    def _answer(
        self, case: Case, reply: Reply, method: Method, command: Command, ground: Ground | None
    ) -> Answer:
        """The reply as it goes out, without what the caller may not see."""
        strict = self._preparation.is_strict(case.verdict)
        guarded = ground is not None and applies(method.guard, strict)
        if isinstance(reply, EventStream):
            self._audit.write(case.record("stream"))
            subject = None if reply.subject is None else self._core.system.qubes[reply.subject]
            source = command.caller if guarded else None
            return self._streams.open(subject, source, method.guard, strict, reply.statistics)
        if isinstance(reply, Rows):
            if guarded and ground is not None:
                rows = shown(reply, method.guard, ground, command)
            else:
                rows = reply.rows.values()
            content = "".join(rows)
        else:
            content = reply.content
        self._audit.write(case.record("ok"))
        return encode_content(content)

    def _refused(self, case: Case) -> bytes:
        self._audit.write(case.record("denied"))
        return encode_refusal(case.id)

    def _changed(self, case: Case) -> bytes:
        """What the user said yes to is not this any more."""
        case.verdict = case.verdict.settled(False, "it changed while the user was asked")
        return self._refused(case)

    def _failed(self, case: Case, error: Exception) -> bytes:
        """An error that the caller may read is its answer; any other one ends this connection and nothing
        else."""
        if isinstance(error, OverLimit):
            return self._over_limit(case, error)
        if isinstance(error, QubesError):
            self._audit.write(case.record(error.wire_name))
            return encode_error(error)
        _log.error("call %d of %r to %r broke off", case.id, case.caller, case.call.service, exc_info=error)
        self._audit.write(case.record("broken"))
        return CLOSE

    def _over_limit(self, case: Case, error: OverLimit) -> bytes:
        """The figures are for the owner and for dom0; to anybody else this is a denial like any other."""
        judged = case.verdict is not UNJUDGED
        case.verdict = case.verdict.refused(f"limit of {error.owner}: {error.detail}")
        if judged and case.uuid != error.owner:
            return self._refused(case)
        self._audit.write(case.record(error.wire_name))
        return encode_error(PermissionDenied(f"{error}; {error.detail}"))

    def _count(self, caller: Qube) -> int:
        """The number of this call among those of its caller. It counts nothing that others do, since a denial
        tells it to the caller."""
        number = self._counts[caller.uuid] = self._counts.get(caller.uuid, 0) + 1
        if number == 1 and len(self._counts) > 2 * len(self._core.system.qubes) + 100:
            there = self._core.system.by_uuid
            self._counts = {uuid: count for uuid, count in self._counts.items() if uuid in there}
        return number
