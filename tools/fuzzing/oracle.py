"""What the daemon must answer: a statement of the two grammars of its own, and the engine for the rest.

The grammars are those of ``spec/policy-daemon.md`` 1.1 and 2, put as patterns; nothing of the daemon's own
reader is in here, so that a mistake in that shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from policy_engine import Allowed, Asked, PolicyError, Request, World, decide, respond, settle, take
from tools.fuzzing.cases import Case, Ending
from tools.fuzzing.ground import Ground
from tools.fuzzing.household import said
from tools.fuzzing.wire import LINE, POLICY, SCREEN

NOTHING = b""
"""Closed without a byte."""
DENY = b"result=deny"
ALLOW = b"result=allow"

_LONGEST_ANSWER = 4_095
_LONGEST_REQUEST = 6 * (LINE + 1) + 1

_LINES = re.compile(rb"(?:[^\n]+(?:\n|\Z))*")
_LINE = re.compile(
    rb"(source|intended_target|service_and_arg|requested_source)=([\0-\x7f]*)"
    rb"|(assume_yes_for_ask|just_evaluate)=(yes|no)"
)
_NEEDED = {"source", "intended_target", "service_and_arg"}

_EVALUATION = re.compile(
    rb"(policy\.Eval(?:Simple|GUI))\+(?!\+)([\x01-\x1f!-\x7f]+) ([\x01-\x1f!-\x7f]+)(?: [\x01-\x7f]*)?"
    rb"\0([\w@.-]{1,31})\0([\w@.-]{1,63})"
)
_LONGEST_ENDS = 31 + 1 + 63


class Meaning(NamedTuple):
    """What the bytes of a case ask. ``request`` is ``None`` where they are no question.

    Attributes:
        whole: whether the daemon has all it needs, and must not wait for more.
        legal: whether it is of a size that the daemon has to read all of, with what comes along with its end.
        screen: the GUI qube that both ends must have; ``None`` for any.
    """

    request: Request | None
    whole: bool
    legal: bool
    assume_yes: bool = False
    just_evaluate: bool = False
    screen: str | None = None


def meaning(case: Case) -> Meaning:
    """What the case asks, by the grammar of its socket."""
    return _of_lines(case) if case.socket == POLICY else _of_evaluation(case)


def _of_lines(case: Case) -> Meaning:
    data = case.sent
    lines = _LINES.match(data)
    assert lines is not None
    # Without an empty line the end of the stream ends it.
    rest = data[lines.end() :]
    whole = bool(rest) or case.ending is not Ending.WAIT
    words = lines[0].removesuffix(b"\n").split(b"\n")
    # Nobody can tell that more will come once a whole request has; what comes with its end is read with it.
    legal = len(rest) <= len(case.pieces[-1])
    legal = legal and len(lines[0]) <= _LONGEST_REQUEST and all(len(word) <= LINE for word in words)
    values: dict[str, str] = {}
    for word in words:
        found = _LINE.fullmatch(word)
        if found is None or len(word) > LINE:
            return Meaning(None, whole, legal)
        key, value = (part.decode("ascii") for part in found.groups() if part is not None)
        if key in values:
            return Meaning(None, whole, legal)
        values[key] = value
    if not values.keys() >= _NEEDED:
        return Meaning(None, whole, legal)
    service, _, argument = values["service_and_arg"].partition("+")
    request = Request(
        service,
        f"+{argument}",
        values["source"],
        values["intended_target"],
        values.get("requested_source") or None,
    )
    assume_yes, just_evaluate = (values.get(key) == "yes" for key in ("assume_yes_for_ask", "just_evaluate"))
    return Meaning(request, whole, legal, assume_yes, just_evaluate)


def _of_evaluation(case: Case) -> Meaning:
    data = case.sent
    header, _, ends = data.partition(b"\0")
    whole = case.ending is not Ending.WAIT
    legal = len(header) <= LINE and len(ends) <= _LONGEST_ENDS
    found = _EVALUATION.fullmatch(data)
    if found is None or not legal or found[1].decode("ascii") != case.socket:
        return Meaning(None, whole, legal)
    asked, caller, source, target = (part.decode("ascii") for part in found.groups()[1:])
    service, _, argument = asked.partition("+")
    request = Request(service, f"+{argument}", source, target)
    return Meaning(request, whole, legal, True, True, caller if case.socket == SCREEN else None)


def answer(asks: Meaning, ground: Ground) -> bytes:
    """The one right answer on this ground."""
    request, policy, world = asks.request, ground.policy, ground.world
    if request is None:
        return NOTHING
    if asks.screen is not None:
        ends = (world.find(request.source), world.find(request.target))
        if not all(end is not None and f"guivm-{asks.screen}" in end.tags for end in ends):
            return NOTHING
    if isinstance(policy, PolicyError):
        return DENY
    decision = decide(policy, request, world)
    if asks.just_evaluate:
        chosen = (
            isinstance(decision, Asked) and asks.assume_yes and decision.requested_target in decision.targets
        )
        return ALLOW if chosen or isinstance(decision, Allowed) else DENY
    if isinstance(decision, Asked):
        if asks.assume_yes:
            decision = take(decision, decision.requested_target, world)
        else:
            word = (
                said(decision.source, request.service, request.argument, decision.targets)
                if _has_a_user(decision, world)
                else None
            )
            decision = settle(decision, None if word is None else word.decode("ascii", "replace"), world)
    response = respond(decision, request, world) if isinstance(decision, Allowed) else None
    return response.encode("ascii") if isinstance(response, str) and _understood(response) else DENY


def answers(asks: Meaning, grounds: Sequence[Ground]) -> set[bytes]:
    """The right answers where any of these grounds may have been there, and others come meanwhile."""
    right = {answer(asks, ground) for ground in grounds}
    if len(grounds) > 1 and any(_is_put(asks, ground) for ground in grounds):
        right.add(DENY)  # a yes to what has changed since it was asked about is none
    return right


def _is_put(asks: Meaning, ground: Ground) -> bool:
    """Whether a user is asked."""
    if (
        asks.request is None
        or isinstance(ground.policy, PolicyError)
        or asks.just_evaluate
        or asks.assume_yes
    ):
        return False
    decision = decide(ground.policy, asks.request, ground.world)
    return isinstance(decision, Asked) and _has_a_user(decision, ground.world)


def _has_a_user(decision: Asked, world: World) -> bool:
    caller = world.find(decision.source)
    return caller is not None and caller.guivm is not None


def _understood(response: str) -> bool:
    """Whether the C qrexec daemon can take it: it would fall back to its policy program otherwise."""
    return (
        len(response) <= _LONGEST_ANSWER and response.isascii() and response.replace("\n", "").isprintable()
    )
