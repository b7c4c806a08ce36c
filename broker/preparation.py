"""From a call that the policy spoke of by its four fields to all that is known of it, and to the policy's
last word."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from broker.absent import as_seen
from broker.contract import Methods, check_contract
from broker.identity import find_qube
from broker.judge import Ground, Verdict
from broker.particulars import particulars
from broker.visible import applies
from policy_engine import Particulars
from qubesd.api.call import Call
from qubesd.api.method import Command, Counted, HeldAlong, Method
from qubesd.model.state import Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core


class Prepared(NamedTuple):
    """A call whose names are looked up and whose payload is read.

    Attributes:
        core: as its caller may know it.
        verdict: what the policy says when it knows all of this; where it is a denial, nothing is carried out.
    """

    method: Method
    command: Command
    core: Core
    verdict: Verdict


class Preparation:
    """Prepares calls on one core.

    Args:
        strict: ``visibility = "strict"``.
        kept_names: of qubes that the configuration stands by; only dom0 makes qubes of these names.
    """

    def __init__(self, core: Core, strict: bool, kept_names: frozenset[str]) -> None:
        self._core = core
        self._strict = strict
        self._kept_names = kept_names

    def is_strict(self, verdict: Verdict) -> bool:
        """Whether guards hold for a call: always, or because a rule of the dialect allowed it."""
        return self._strict or verdict.delegated

    def prepare(
        self,
        methods: Methods,
        call: Call,
        service: str,
        caller: Qube,
        ground: Ground | None,
        verdict: Verdict,
    ) -> Prepared:
        """All of a call.

        Args:
            service: that the policy was asked for.
            ground: what it was judged on; ``None`` where nobody judges it.

        Raises:
            QubesError: a name is unknown, or the call is not as its method declares.
        """
        core = self._core
        target = find_qube(call.target, core.system)
        method = check_contract(methods, call, target)
        value = method.parse(core, target, call.argument, call.payload) if method.parse else None
        command = Command(call.service, call.argument, caller, target, value)
        if ground is None:
            return Prepared(method, command, core, verdict)
        if verdict.delegated:
            command = replace(command, inherits=ground.confers_nothing)
        if applies(method.guard, self.is_strict(verdict)):
            match method.guard:
                case HeldAlong(read):
                    command = replace(command, sees=partial(ground.allows, read, call.argument))
                case Counted(read):
                    command = replace(command, sees=partial(ground.allows, read, ""))
        return self._confirmed(Prepared(method, command, core, verdict), call, service, ground)

    def _confirmed(self, prepared: Prepared, call: Call, service: str, ground: Ground) -> Prepared:
        """The call, judged with all that is known of it.

        What a rule of the dialect allows, it allows for each qube that the call touches, so that all of them
        are there for the caller. What it denies is judged again without those that are hidden: to whom a qube
        is not there, it is not there to be denied.
        """
        method, command, core, chosen = prepared
        verdict = chosen
        if chosen.delegated or method.creates:
            verdict = self._judged(chosen, service, call, ground, particulars(core, method, command))
        if not self.is_strict(verdict) or (chosen.delegated and verdict.allowed):
            return Prepared(method, command, core, verdict)
        seen = as_seen(core, method, command, call, ground)
        if seen is not core and not verdict.allowed:
            verdict = self._judged(chosen, service, call, ground, particulars(seen, method, command))
        return Prepared(method, command, seen, verdict)

    def _judged(
        self, chosen: Verdict, service: str, call: Call, ground: Ground, about: Particulars
    ) -> Verdict:
        """The verdict by all that is known of the call."""
        if about.makes in self._kept_names:
            return chosen.refused("name")
        return ground.confirm(chosen, service, call.argument, call.target, about)
