"""From a call to its answer: who calls, what the policy says, the method's contract, the handler, the guard.

Nothing is looked up for a judged caller before the policy has spoken on the names as they were given. What
waits for nothing is answered in the same turn of the loop; the rest is a coroutine that ends in the same kind
of answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from broker.absent import as_seen
from broker.audit import AuditLog, Record
from broker.facts import Facts
from broker.identity import Door, Peer, find_qube
from broker.judge import UNJUDGED, Ground, PolicyInForce, Verdict
from broker.particulars import particulars
from broker.streams import Listener, Streams
from broker.visible import applies, shown
from broker.wire import encode_content, encode_error, encode_refusal
from policy_engine import Particulars
from qubesd.api.method import Call, Command, Destination, EventStream, HeldAlong, Method, Need, Reply, Rows
from qubesd.errors import OverLimit, PermissionDenied, ProtocolError, QubesError
from qubesd.model.state import Klass, Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core

_log = logging.getLogger(__name__)

Methods = Mapping[str, Method]

Answer = bytes | Listener
"""The whole reply (no byte at all: close without one), or a stream of events."""

CLOSE = b""


@dataclass(slots=True)
class _Case:
    """One call on its way, for its audit record."""

    call: Call
    caller: str
    id: int
    started: float
    begun: float
    uuid: str = ""
    """Of the caller; empty where there is none."""
    verdict: Verdict = UNJUDGED

    def record(self, outcome: str) -> Record:
        call, verdict = self.call, self.verdict
        return Record(
            self.started,
            self.id,
            self.caller,
            call.service,
            call.argument,
            call.target,
            verdict.decision,
            verdict.reason,
            verdict.place,
            time.perf_counter() - self.begun,
            outcome,
        )


class Dispatcher:
    """Answers calls on one core.

    Args:
        strict: ``visibility = "strict"``: guards hold for every judged call, and what is hidden is absent.
        trust_consent: on dom0's socket an ``ask`` has been put to the user by the policy daemon in front.
        kept_names: of qubes that the configuration stands by; only dom0 makes qubes of these names.
    """

    def __init__(
        self,
        core: Core,
        policies: PolicyInForce,
        facts: Facts,
        streams: Streams,
        audit: AuditLog,
        *,
        strict: bool,
        trust_consent: bool,
        kept_names: frozenset[str] = frozenset(),
    ) -> None:
        self._core = core
        self._policies = policies
        self._facts = facts
        self._streams = streams
        self._audit = audit
        self._strict = strict
        self._trust_consent = trust_consent
        self._kept_names = kept_names
        self._counts: dict[str, int] = {}

    def take(
        self, call: Call, door: Door, peer: Peer, methods: Methods
    ) -> Answer | Coroutine[Any, Any, Answer]:
        """Carry out a call that came through this door, or refuse it. Never raises for what a caller sent."""
        started, begun = time.time(), time.perf_counter()
        core = self._core
        try:
            caller = door.caller(call.source, peer, core.system)
        except QubesError as error:
            self._audit.write(_Case(call, call.source, 0, started, begun).record(error.wire_name))
            return encode_error(error)
        case = _Case(call, caller.name, self._count(caller), started, begun, caller.uuid)
        ground = None
        service = _judged_service(methods, call)
        if door.judges(caller) or (service is not call.service and caller.klass is not Klass.ADMIN):
            ground = Ground(self._policies.now, self._facts.world(), caller.name)
            consented = self._trust_consent and door.vouches
            case.verdict = ground.judge(service, call.argument, call.target, consented)
            if not case.verdict.allowed or (self._is_strict(case) and core.system.find(call.target) is None):
                return self._refused(case)
        try:
            target = find_qube(call.target, core.system)
            method = check_contract(methods, call, target)
            value = method.parse(core, target, call.argument, call.payload) if method.parse else None
            command = Command(call.service, call.argument, caller, target, value)
            if ground is not None:
                if case.verdict.delegated:
                    command = replace(command, inherits=ground.confers_nothing)
                if isinstance(method.guard, HeldAlong) and applies(method.guard, self._is_strict(case)):
                    command = replace(command, sees=partial(ground.allows, method.guard.read, call.argument))
                core = self._confirm(case, method, command, ground, service)
                if not case.verdict.allowed:
                    return self._refused(case)
            reply = method.handler(core, command)
        except Exception as error:
            return self._failed(case, error)
        if isinstance(reply, Awaitable):
            return self._wait(case, reply, method, command, ground)
        return self._answer(case, reply, method, command, ground)

    def _confirm(self, case: _Case, method: Method, command: Command, ground: Ground, service: str) -> Core:
        """Judge the call with all that is known of it; the core that its caller may know.

        What a rule of the dialect allows, it allows for each qube that the call touches, so that all of them
        are there for the caller. What it denies is judged again without those that are hidden: to whom a qube
        is not there, it is not there to be denied.
        """
        core, chosen = self._core, case.verdict
        if chosen.delegated or method.creates:
            case.verdict = self._judged(
                chosen, service, case.call, ground, particulars(core, method, command)
            )
        if not self._is_strict(case) or (chosen.delegated and case.verdict.allowed):
            return core
        seen = as_seen(core, method, command, case.call, ground)
        if seen is not core and not case.verdict.allowed:
            case.verdict = self._judged(
                chosen, service, case.call, ground, particulars(seen, method, command)
            )
        return seen

    def _judged(
        self, chosen: Verdict, service: str, call: Call, ground: Ground, about: Particulars
    ) -> Verdict:
        """The verdict by all that is known of the call."""
        if about.makes in self._kept_names:
            return chosen.refused("name")
        return ground.confirm(chosen, service, call.argument, call.target, about)

    async def _wait(
        self,
        case: _Case,
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
        self, case: _Case, reply: Reply, method: Method, command: Command, ground: Ground | None
    ) -> Answer:
        """The reply as it goes out, without what the caller may not see."""
        strict = self._is_strict(case)
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

    def _is_strict(self, case: _Case) -> bool:
        """Whether guards hold for this call: always, or because a rule of the dialect allowed it."""
        return self._strict or case.verdict.delegated

    def _refused(self, case: _Case) -> bytes:
        self._audit.write(case.record("denied"))
        return encode_refusal(case.id)

    def _failed(self, case: _Case, error: Exception) -> bytes:
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

    def _over_limit(self, case: _Case, error: OverLimit) -> bytes:
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


def check_contract(methods: Methods, call: Call, target: Qube) -> Method:
    """The method of a call that keeps what the method declares, checked in the order of stock.

    Raises:
        ProtocolError: unknown method; payload, argument or destination is not as declared.
    """
    method = methods.get(call.service)
    if method is None:
        raise ProtocolError(f"no such method: {call.service[:64]!r}")
    _check_need("payload", method.payload, bool(call.payload))
    _check_need("argument", method.argument, bool(call.argument))
    if method.destination is not Destination.ANY:
        is_dom0 = target.klass is Klass.ADMIN
        if is_dom0 is not (method.destination is Destination.DOM0):
            raise ProtocolError(
                "this call is made to dom0 only" if not is_dom0 else "this call is not made to dom0"
            )
    return method


def _judged_service(methods: Methods, call: Call) -> str:
    """The service that the policy is asked for."""
    method = methods.get(call.service)
    return call.service if method is None or method.judged_as is None else method.judged_as(call)


def _check_need(what: str, need: Need, given: bool) -> None:
    if given and need is Need.FORBIDDEN:
        raise ProtocolError(f"unexpected {what}")
    if not given and need is Need.REQUIRED:
        raise ProtocolError(f"missing {what}")
