"""From a question to the text that answers it: decide, ask and tell the user (``spec/policy-daemon.md`` 1.3).

A question always gets a denial where upstream breaks off: the C qrexec daemon would go on to its fallback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from broker.agent import Agents, Note
from broker.judge import PolicyInForce, Verdict
from broker.questions import Question
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

_log = logging.getLogger("qrexec")

DENY = "result=deny"
ALLOW = "result=allow"

MAX_RESPONSE = 4_095
"""Bytes of a response that the C qrexec daemon takes."""

MAX_ASKS = 32
"""Questions of one source that wait for the user; more are denied."""

MAX_NOTES = 64
"""Notifications on their way; more are dropped. A qube can have calls denied as fast as it likes."""

_LONGEST_SHOWN = 200


class StateError(Exception):
    """What the qubes are is not to be had; nothing can be decided."""


State = Callable[[], World | Awaitable[World]]
"""Gives the qubes as they are now, or were at some time after it was called; raises ``StateError``."""

Refused = Callable[[Request, Verdict], None]
"""Told of each denial that is not only an evaluation."""

Answer = str | None
"""The text, without a line end; ``None`` for a question that gets no answer."""


class Answering:
    """Answers questions by the policy in force. ``refused`` may be ``None`` for nobody."""

    def __init__(
        self, policies: PolicyInForce, state: State, agents: Agents, refused: Refused | None = None
    ) -> None:
        self._policies = policies
        self._state = state
        self._agents = agents
        self._refused = refused
        self._asking: dict[str, int] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def answer(self, question: Question) -> Answer | Coroutine[Any, Any, Answer]:
        """The answer, or where it has to be waited for, what waits for it. Never raises, nor does that."""
        world = self._state()
        return self._decide(question, world) if isinstance(world, World) else self._fetch(question, world)

    async def close(self, grace: float = 0.0) -> None:
        """Give up the notifications that are still on their way after ``grace`` seconds."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=grace)
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _fetch(self, question: Question, fetching: Awaitable[World]) -> Answer:
        try:
            world = await fetching
        except StateError as error:
            _say(question.request, f"denied: {error}")
            return DENY
        answer = self._decide(question, world)
        return await answer if isinstance(answer, Coroutine) else answer

    def _decide(self, question: Question, world: World) -> Answer | Coroutine[Any, Any, Answer]:
        request, policy = question.request, self._policies.now
        if question.screen is not None and not _on_screen(question.screen, request, world):
            _say(request, f"no answer: one of them has not the screen {quoted(question.screen)}")
            return None
        if isinstance(policy, PolicyError):
            _say(request, f"error loading policy: {policy}")
            # Of a flawed line the log tells, the user is not told (``spec/policy-language.md`` 9).
            if not question.just_evaluate:
                self._refuse(request, f"the policy does not load: {policy}")
                if policy.line is None:
                    self._tell(_denial(request, world))
            return DENY
        decision = decide(policy, request, world)
        if question.just_evaluate:
            return _evaluated(question, decision)
        if isinstance(decision, Asked):
            if not question.assume_yes:
                return self._ask(decision, request, world)
            decision = take(decision, decision.requested_target, world)
        return self._conclude(decision, request, world)

    async def _ask(self, asked: Asked, request: Request, world: World) -> str:
        facts = world.find(asked.source)
        screen = None if facts is None else facts.guivm
        waiting = self._asking.get(request.source, 0)
        untrusted_answer = None
        if not screen:
            _say(request, "nobody to ask: the source has no GUI qube")
        elif waiting >= MAX_ASKS:
            _say(request, f"not asked: {waiting} questions of this source wait for the user")
        else:
            self._asking[request.source] = waiting + 1
            try:
                untrusted_answer = await self._agents.ask(screen, asked, request, world)
            finally:
                self._asking[request.source] -= 1
                if not self._asking[request.source]:
                    del self._asking[request.source]
        return self._conclude(settle(asked, untrusted_answer, world), request, world)

    def _conclude(self, decision: Allowed | Denied, request: Request, world: World) -> str:
        """The response, with all that is told on the way to it."""
        notes: tuple[Note, ...] = ()
        if isinstance(decision, Allowed):
            _say(request, f"allowed to {_shown(decision.target)}")
            if decision.notify:
                notes = _note(world, request, "allow", decision.source, decision.target)
            response = respond(decision, request, world)
        else:
            response = decision
        if isinstance(response, Denied):
            place = "" if response.rule is None else f" ({response.rule.file}:{response.rule.line})"
            _say(request, f"denied: {response.kind}{place}")
            self._refuse(request, response.kind, response.rule)
            if response.notify:
                notes += _denial(request, world)
            response = DENY
        elif not _fits(response):
            _say(request, "denied: the response would not be understood")
            self._refuse(request, "the response would not be understood")
            notes += _denial(request, world)
            response = DENY
        if notes:
            self._tell(notes)
        return response

    def _refuse(self, request: Request, reason: str, rule: AnyRule | None = None) -> None:
        if self._refused is not None:
            self._refused(request, Verdict(False, "deny", reason, rule))

    def _tell(self, notes: tuple[Note, ...]) -> None:
        """Have the user told, in this order; the answer does not wait for it."""
        if len(self._telling) >= MAX_NOTES:
            _log.warning("dropped a notification: %d are on their way", len(self._telling))
            return
        task = asyncio.get_running_loop().create_task(self._tell_all(notes))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_all(self, notes: tuple[Note, ...]) -> None:
        for note in notes:
            await self._agents.tell(note)


def _evaluated(question: Question, decision: Allowed | Asked | Denied) -> str:
    """Whether the call would be made, as far as its name tells; not where it depends on what it says."""
    if isinstance(decision.rule, DelegationRule) and decision.rule.value is not None:
        _say(question.request, "would be denied without its value")
        return DENY
    allowed = isinstance(decision, Allowed) or (
        question.assume_yes and isinstance(decision, Asked) and decision.requested_target in decision.targets
    )
    _say(question.request, "would be allowed" if allowed else "would be denied")
    return ALLOW if allowed else DENY


def _on_screen(screen: str, request: Request, world: World) -> bool:
    """Whether both ends are qubes that the GUI qube of this name shows."""
    tag = f"guivm-{screen}"
    ends = (world.find(request.source), world.find(request.target))
    return all(end is not None and tag in end.tags for end in ends)


def _denial(request: Request, world: World) -> tuple[Note, ...]:
    """Goes to the screen of the calling qube, whoever it calls for."""
    return _note(world, request, "deny", request.source, request.target)


def _note(world: World, request: Request, resolution: str, source: str, target: str) -> tuple[Note, ...]:
    facts = world.find(source)
    if facts is None or not facts.guivm:
        return ()
    return (Note(facts.guivm, resolution, request.service, request.argument, source, target),)


def _fits(response: str) -> bool:
    """Whether the C qrexec daemon takes it. A malformed one would not be a denial: it makes the daemon decide
    by its fallback, which does not know of a requested source."""
    return len(response) <= MAX_RESPONSE and all(
        line.isascii() and line.isprintable() for line in response.split("\n")
    )


def _say(request: Request, what: str) -> None:
    if _log.isEnabledFor(logging.INFO):
        service = _shown(f"{request.service}{request.argument}")
        _log.info("qrexec: %s: %s -> %s: %s", service, _shown(request.source), _shown(request.target), what)


def _shown(untrusted_text: str) -> str:
    plain = (
        untrusted_text.isascii() and untrusted_text.isprintable() and len(untrusted_text) <= _LONGEST_SHOWN
    )
    return untrusted_text if plain else quoted(untrusted_text)
