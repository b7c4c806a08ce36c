"""From a question to the text that answers it: decide, ask and tell the user (``spec/policy-daemon.md`` 1.3).

A question always gets a denial where upstream breaks off: the C qrexec daemon would go on to its fallback.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from broker.agent import Note
from broker.deciding.pending import Pending
from broker.deciding.questions import Question
from broker.deciding.state import State, StateError
from broker.judge import Ground, PolicyInForce, Verdict
from broker.prompter import Prompter, denial, note_of
from broker.saying import say, shown
from policy_engine import (
    Allowed,
    AnyRule,
    Asked,
    DelegationRule,
    Denied,
    PolicyError,
    Request,
    World,
    decide,
    respond,
    settle,
    take,
)
from policy_engine.errors import quoted

if TYPE_CHECKING:
    # A daemon without a core has none, and does not load one.
    from broker.deciding.beforehand import Beforehand

DENY = "result=deny"
ALLOW = "result=allow"

MAX_RESPONSE = 4_095
"""Bytes of a response that the C qrexec daemon takes."""


Refused = Callable[[Request, Verdict], None]
"""Told of each denial that is not only an evaluation."""

Answer = str | None
"""The text, without a line end; ``None`` for a question that gets no answer."""


class Answering:
    """Answers questions by the policy in force.

    Args:
        refused: is told of denials; ``None`` for nobody.
        beforehand: of calls that come to this daemon if they are let through; ``None`` where none do.
    """

    def __init__(
        self,
        policies: PolicyInForce,
        state: State,
        prompter: Prompter,
        refused: Refused | None = None,
        beforehand: Beforehand | None = None,
    ) -> None:
        self._policies = policies
        self._state = state
        self._prompter = prompter
        self._refused = refused
        self._beforehand = beforehand

    def answer(self, question: Question) -> Answer | Coroutine[Any, Any, Answer]:
        """The answer, or where it has to be waited for, what waits for it. Never raises, nor does that."""
        world = self._state()
        return self._decide(question, world) if isinstance(world, World) else self._fetch(question, world)

    async def close(self, grace: float = 0.0) -> None:
        """Give up the notifications that are still on their way after ``grace`` seconds."""
        await self._prompter.close(grace)

    async def _fetch(self, question: Question, fetching: Awaitable[World]) -> Answer:
        try:
            world = await fetching
        except StateError as error:
            say(question.request, f"denied: {error}")
            return DENY
        answer = self._decide(question, world)
        return await answer if isinstance(answer, Coroutine) else answer

    def _decide(self, question: Question, world: World) -> Answer | Coroutine[Any, Any, Answer]:
        request, policy = question.request, self._policies.now
        if question.screen is not None and not _on_screen(question.screen, request, world):
            say(request, f"no answer: one of them has not the screen {quoted(question.screen)}")
            return None
        if isinstance(policy, PolicyError):
            say(request, f"error loading policy: {policy}")
            # Of a flawed line the log tells, the user is not told (``spec/policy-language.md`` 9).
            if not question.just_evaluate:
                self._refuse(request, f"the policy does not load: {policy}")
                if policy.line is None:
                    self._prompter.tell(denial(world, request))
            return DENY
        decision = decide(policy, request, world)
        if question.just_evaluate:
            return _evaluated(question, decision)
        if isinstance(decision, Asked):
            if not question.assume_yes:
                return self._ask(Pending(decision, request, policy, world))
            decision = take(decision, decision.requested_target, world)
        return self._conclude(decision, request, world)

    def _ask(self, pending: Pending) -> Answer | Coroutine[Any, Any, Answer]:
        """Have the user asked, unless that is for when the call comes, or a yes is remembered."""
        asked, request, policy, world = pending
        beforehand = self._beforehand
        if beforehand is None or not beforehand.comes_here(request.service, asked):
            return self._put(pending, request.argument)
        ground = Ground(policy, world, asked.source)
        expected = beforehand.expected(request, asked, ground)
        if expected is None:
            say(request, "let through: the user is asked when it comes")
        elif beforehand.remembers(expected, ground, asked):
            say(request, "let through: the user's yes is remembered")
        else:
            return self._put(pending, expected.text, partial(beforehand.agree, expected, pending))
        return self._conclude(take(asked, asked.targets[0], world), request, world)

    async def _put(self, pending: Pending, text: str, agree: Callable[[World], bool] | None = None) -> str:
        """Put the question, with ``text`` for its argument.

        ``agree`` takes down a yes that a call is carried out on later, and tells whether it still counts.
        """
        asked, request, _, world = pending
        untrusted_answer = await self._prompter.ask(asked, request._replace(argument=text), world)
        decision, world = await self._settled(pending, untrusted_answer)
        if isinstance(decision, Allowed) and agree is not None and not agree(world):
            decision = _changed(asked)
        return self._conclude(decision, request, world)

    async def _settled(
        self, pending: Pending, untrusted_answer: str | None
    ) -> tuple[Allowed | Denied, World]:
        """What the answer comes to, in the world as it is by now; a yes to what has changed is none."""
        asked = pending.asked
        decision = settle(asked, untrusted_answer, pending.world)
        if not isinstance(decision, Allowed) or untrusted_answer is None:
            return decision, pending.world
        state = self._state()
        try:
            world = state if isinstance(state, World) else await state
        except StateError as error:
            say(pending.request, f"the qubes cannot be looked at again: {error}")
            return _changed(asked), pending.world
        if not pending.stands(untrusted_answer.removeprefix("allow:"), self._policies.now, world):
            return _changed(asked), world
        return settle(asked, untrusted_answer, world), world

    def _conclude(self, decision: Allowed | Denied, request: Request, world: World) -> str:
        """The response, with all that is told on the way to it."""
        notes: tuple[Note, ...] = ()
        if isinstance(decision, Allowed):
            say(request, f"allowed to {shown(decision.target)}")
            if decision.notify:
                notes = note_of(world, request, "allow", decision.source, decision.target)
            response = respond(decision, request, world)
        else:
            response = decision
        if isinstance(response, Denied):
            place = "" if response.rule is None else f" ({response.rule.file}:{response.rule.line})"
            say(request, f"denied: {response.kind}{place}")
            self._refuse(request, response.kind, response.rule)
            if response.notify:
                notes += denial(world, request)
            response = DENY
        elif not _fits(response):
            say(request, "denied: the response would not be understood")
            self._refuse(request, "the response would not be understood")
            notes += denial(world, request)
            response = DENY
        self._prompter.tell(notes)
        return response

    def _refuse(self, request: Request, reason: str, rule: AnyRule | None = None) -> None:
        if self._refused is not None:
            self._refused(request, Verdict(False, "deny", reason, rule))


def _evaluated(question: Question, decision: Allowed | Asked | Denied) -> str:
    """Whether the call would be made, as far as its name tells; not where it depends on what it says."""
    if isinstance(decision.rule, DelegationRule) and decision.rule.value is not None:
        say(question.request, "would be denied without its value")
        return DENY
    allowed = isinstance(decision, Allowed) or (
        question.assume_yes and isinstance(decision, Asked) and decision.requested_target in decision.targets
    )
    say(question.request, "would be allowed" if allowed else "would be denied")
    return ALLOW if allowed else DENY


def _changed(asked: Asked) -> Denied:
    return Denied("changed", True, asked.rule)


def _on_screen(screen: str, request: Request, world: World) -> bool:
    """Whether both ends are qubes that the GUI qube of this name shows."""
    tag = f"guivm-{screen}"
    ends = (world.find(request.source), world.find(request.target))
    return all(end is not None and tag in end.tags for end in ends)


def _fits(response: str) -> bool:
    """Whether the C qrexec daemon takes it. A malformed one would not be a denial: it makes the daemon decide
    by its fallback, which does not know of a requested source."""
    return len(response) <= MAX_RESPONSE and all(
        line.isascii() and line.isprintable() for line in response.split("\n")
    )
