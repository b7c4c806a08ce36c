"""What a change of policy does: the calls of the qubes that are there which are answered otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from policy_engine.catalogue import Catalogue, guard_of
from policy_engine.confirm import allowance
from policy_engine.decide import decide
from policy_engine.decision import Allowed, Asked, Decision, Request
from policy_engine.delegation import Allowance, AnyRule, DelegationRule
from policy_engine.expression import Is
from policy_engine.model import ANY, DOM0
from policy_engine.plan import speaks_of
from policy_engine.policy import Policy
from policy_engine.targets import source_keys, target_keys
from policy_engine.world import DISPOSABLE_BASES, World, selector_key

MOST = 100_000
"""Calls that are compared; some half a second of them."""

Verdict = Literal["allow", "ask", "deny"]


class Turn(NamedTuple):
    """A call that is answered otherwise.

    Attributes:
        service: ``*`` stands for those that no rule names, ``qubes.*`` for those of a glob.
        argument: with its ``+``. Those that no rule names are one: ``+``, or ``+*`` where a rule names the
            empty one.
        before, after: the same where the answer is of the same kind, but the call goes elsewhere, the choices
            are others, or more or less is asked of the payload.
    """

    source: str
    service: str
    argument: str
    target: str
    before: Verdict
    after: Verdict


@dataclass(frozen=True, slots=True)
class Impact:
    """What a change does.

    Attributes:
        turns: the calls that are answered otherwise, in order of their sources, services and targets.
        allowances: those that change, with the qube and what it may have before and after.
        whole: whether every call was compared that a changed rule speaks of.
    """

    turns: tuple[Turn, ...]
    allowances: tuple[tuple[str, Allowance, Allowance], ...]
    whole: bool


def impact(
    before: Policy, after: Policy, world: World, catalogue: Catalogue, callers: Iterable[str] = ()
) -> Impact:
    """Compare two policies in one world, by the calls that the rules between their first and last difference
    speak of.

    Args:
        catalogue: the calls that dom0 carries out. One that leads elsewhere counts as denied.
        callers: sources to look at besides the qubes of the world.
    """
    turns = []
    whole = True
    for number, request in enumerate(_Calls(before, after, world, catalogue, callers)):
        if number == MOST:
            whole = False
            break
        old = _outcome(decide(before, request, world), request, catalogue)
        new = _outcome(decide(after, request, world), request, catalogue)
        if old != new:
            service, argument, source, target, _ = request
            turns.append(Turn(source, service, argument, target, old.verdict, new.verdict))
    return Impact(tuple(sorted(turns)), tuple(_allowances(before, after, world)), whole)


def _allowances(before: Policy, after: Policy, world: World) -> Iterator[tuple[str, Allowance, Allowance]]:
    if before.limits or after.limits:
        for name in world.names:
            old, new = allowance(before, name, world), allowance(after, name, world)
            if old != new:
                yield name, old, new


class _Outcome(NamedTuple):
    """What of a decision makes a difference to its caller or to whom is called."""

    verdict: Verdict
    targets: tuple[str, ...] = ()
    user: str | None = None
    value: object = None
    remember: int | None = None


_DENY = _Outcome("deny")


def _outcome(decision: Decision, request: Request, catalogue: Catalogue) -> _Outcome:
    match decision:
        case Allowed(target=target, user=user):
            if target != DOM0 and request.service in catalogue.entries:
                return _DENY
            made = _Outcome("allow", (target,), user)
        case Asked(targets=targets, user=user):
            made = _Outcome("ask", targets, user)
        case _:
            return _DENY
    rule = decision.rule
    if isinstance(rule, DelegationRule):
        return made._replace(value=rule.value, remember=rule.remember)
    return made


def differing(before: Sequence[AnyRule], after: Sequence[AnyRule]) -> tuple[list[AnyRule], list[AnyRule]]:
    """What is left of both where they begin and end alike, wherever their rules are written."""
    old, new = [_essence(rule) for rule in before], [_essence(rule) for rule in after]
    least = min(len(old), len(new))
    head = next((place for place in range(least) if old[place] != new[place]), least)
    least -= head
    tail = next((place for place in range(least) if old[-1 - place] != new[-1 - place]), least)
    return list(before[head : len(old) - tail]), list(after[head : len(new) - tail])


def _essence(rule: AnyRule) -> object:
    """What a rule says, wherever it is written."""
    if isinstance(rule, DelegationRule):
        return rule.reach, rule.frame, rule.action, rule.value, rule.remember
    return rule.service, rule.argument, rule.source, rule.target, rule.action


class _Calls:
    """The calls that differing rules speak of, each once."""

    def __init__(
        self, before: Policy, after: Policy, world: World, catalogue: Catalogue, callers: Iterable[str]
    ) -> None:
        old, new = differing(before.rules, after.rules)
        self._rules = (*new, *old)
        self._world = world
        everything = (*before.rules, *after.rules)
        self._arguments = _named_arguments(everything)
        self._services = sorted({*self._arguments, *catalogue.entries, ANY})
        self._entries = catalogue.entries
        bases = world.selected(world.matching((DISPOSABLE_BASES,)))
        self._no_qubes = ("@default", "@dispvm", *(f"@dispvm:{base}" for base in bases))
        self._callers = [name for name in world.names if name != DOM0]
        self._callers += sorted(set(callers).difference(world.names))

    def __iter__(self) -> Iterator[Request]:
        seen = set[Request]()
        for rule in self._rules:
            for source in self._callers:
                resident = self._world.resident(source)
                keys = source_keys(source) if resident is None else resident.keys
                if speaks_of(rule, keys, source if resident else ""):
                    for request in self._of(rule, source):
                        if request.target != source and request not in seen:
                            seen.add(request)
                            yield request

    def _of(self, rule: AnyRule, source: str) -> Iterator[Request]:
        targets = self._targets(rule, source)
        for service in self._covered(rule):
            for argument in self._argument(rule, service, source):
                for target in targets if service not in self._entries else self._served(service, targets):
                    yield Request(service, argument, source, target)

    def _served(self, service: str, targets: Iterable[str]) -> list[str]:
        """Those that a call which dom0 carries out can have."""
        if self._entries[service].scope == "global":
            return [target for target in targets if target == DOM0]
        return [target for target in targets if target[0] != "@"]

    def _covered(self, rule: AnyRule) -> list[str]:
        if not isinstance(rule, DelegationRule):
            return self._services if rule.service == ANY else [rule.service]
        others = [f"{head}{ANY}" for head in rule.reach.services.globs if head and not guard_of(head)]
        return [service for service in (*self._services, *others) if rule.covers_service(service)]

    def _argument(self, rule: AnyRule, service: str, source: str) -> list[str]:
        """Those that some rule names, and one for all others."""
        named = {*self._arguments.get(service, ()), *self._arguments.get(ANY, ())}
        known = sorted({*named, "+", *(("+*",) if "+" in named else ())})
        if not isinstance(rule, DelegationRule):
            return known if rule.argument == ANY else [rule.argument]
        found = [argument for argument in known if rule.covers_argument(argument)]
        found += [f"+{head.removeprefix('+')}" for head in rule.reach.arguments.globs]
        if rule.reach.arguments.qubes is not None:
            qubes = rule.reach.arguments.qubes.bound(source).bits(self._world)
            found = [f"+{name}" for name in self._world.selected(qubes)]
        return [*dict.fromkeys(found)]

    def _targets(self, rule: AnyRule, source: str) -> list[str]:
        if isinstance(rule, DelegationRule):
            target = rule.reach.target.bound(source)
        else:
            target = Is(selector_key(rule.target))
        named = (one for one in self._no_qubes if target.matches(target_keys(one, source, self._world)))
        return [*self._world.selected(target.bits(self._world)), *named]


def _named_arguments(rules: Iterable[AnyRule]) -> dict[str, set[str]]:
    """The arguments that rules name, by service; those of rules for many services under ``*``."""
    found: dict[str, set[str]] = {}
    for rule in rules:
        if not isinstance(rule, DelegationRule):
            found.setdefault(rule.service, set()).update({rule.argument} - {ANY})
            continue
        for reach in rule.reaches():
            for service in (*reach.services.names, *(ANY for _ in reach.services.globs)):
                found.setdefault(service, set()).update(reach.arguments.names)
    return found
