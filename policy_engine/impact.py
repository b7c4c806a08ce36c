"""What a change of policy does: the calls of the qubes that are there which are answered otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

from policy_engine.catalogue import Catalogue, guard_of
from policy_engine.confirm import allowance
from policy_engine.decide import decide
from policy_engine.decision import Asked, Request
from policy_engine.delegation import Allowance, AnyRule, DelegationRule
from policy_engine.differing import differing
from policy_engine.model import ANY, DOM0, DOM0_TEXTS, Allow, Ask, Redirect
from policy_engine.plan import speaks_of
from policy_engine.policy import Policy
from policy_engine.reach import Call, Reach, Way, lowest
from policy_engine.targets import source_keys
from policy_engine.world import World

MOST = 200_000
"""Calls by one source that are compared, each with all its targets; some seconds of them."""

MOST_PAIRS = 1_000_000
"""Pairs of a rule and a qube that are looked at, in whether the rule speaks of the qube as a caller."""

Verdict = Literal["allow", "ask", "deny"]


class Turn(NamedTuple):
    """A call that is answered otherwise.

    Attributes:
        service: ``*`` stands for those that no rule names, ``qubes.*`` for those of a glob.
        argument: with its ``+``. Those that no rule names are one: ``+``, or ``+*`` where a rule names the
            empty one.
        before, after: the same where the answer is of the same kind, but the call goes elsewhere, the choices
            are others, or more or less is asked of the payload.
        targets: as bits, bit N standing for ``Impact.tokens[N]``.
    """

    source: str
    service: str
    argument: str
    before: Verdict
    after: Verdict
    targets: int


@dataclass(frozen=True, slots=True)
class Impact:
    """What a change does.

    Attributes:
        turns: the calls that are answered otherwise, sorted.
        tokens: all targets: qubes, new disposables, ``@default``.
        allowances: those that change, with the qube and what it may have before and after.
        whole: whether all calls were compared that a changed rule speaks of.
    """

    turns: tuple[Turn, ...]
    tokens: tuple[str, ...]
    allowances: tuple[tuple[str, Allowance, Allowance], ...]
    whole: bool

    def targets(self, bits: int, most: int) -> list[str]:
        """The first targets of those that the bits stand for, at most so many."""
        found = list[str]()
        while bits and len(found) < most:
            found.append(self.tokens[lowest(bits)])
            bits &= bits - 1
        return found


def impact(
    before: Policy, after: Policy, world: World, catalogue: Catalogue, callers: Iterable[str] = ()
) -> Impact:
    """Compare two policies in one world, by the calls that the rules speak of in which they differ.

    Args:
        catalogue: the calls that dom0 carries out. One that leads elsewhere counts as denied.
        callers: sources to look at besides the qubes of the world.
    """
    calls = _Calls(before, after, world, catalogue, callers)
    comparing = _Comparing(before, after, world, catalogue)
    turns = [turn for call, source in calls for turn in comparing.turns(call, source)]
    return Impact(
        tuple(sorted(turns)),
        comparing.tokens,
        tuple(_allowances(before, after, world)),
        calls.whole,
    )


def _allowances(before: Policy, after: Policy, world: World) -> Iterator[tuple[str, Allowance, Allowance]]:
    if before.limits or after.limits:
        for name in world.names:
            old, new = allowance(before, name, world), allowance(after, name, world)
            if old != new:
                yield name, old, new


class _Outcome(NamedTuple):
    """What of an answer makes a difference to the caller or to whom is called."""

    verdict: Verdict
    target: Redirect | None = None
    default_target: Redirect | None = None
    user: str | None = None
    value: object = None
    remember: int | None = None

    @classmethod
    def of(cls, way: Way) -> _Outcome:
        action, rule = way.action, way.rule
        default = action.default_target if isinstance(action, Ask) else None
        verdict: Verdict = "allow" if isinstance(action, Allow) else "ask"
        if isinstance(rule, DelegationRule):
            return cls(verdict, action.target, default, action.user, rule.value, rule.remember)
        return cls(verdict, action.target, default, action.user)


_DENY = _Outcome("deny")


class _Comparing:
    """Two policies in one world."""

    def __init__(self, before: Policy, after: Policy, world: World, catalogue: Catalogue) -> None:
        self._policies = before, after
        self._reaches = Reach(before, world), Reach(after, world)
        self._world = world
        self._entries = catalogue.entries
        self.tokens = self._reaches[0].tokens
        self._everything = (1 << len(self.tokens)) - 1
        self._qubes = (1 << len(world)) - 1
        self._dom0 = 1 << world.number(DOM0) if DOM0 in world else 0

    def turns(self, call: Call, source: str) -> Iterator[Turn]:
        """Where the answers to a call by a source differ, by how they do."""
        assert isinstance(call.argument, str)
        old, new = (self._outcomes(reach, call, source) for reach in self._reaches)
        differing = dict[tuple[Verdict, Verdict], int]()
        for (one, had), (other, has) in product(old.items(), new.items()):
            both = had & has
            if both and (one != other or self._chooses_otherwise(one, call, source, both)):
                key = one.verdict, other.verdict
                differing[key] = differing.get(key, 0) | both
        for (verdict, another), targets in differing.items():
            yield Turn(source, call.service, call.argument, verdict, another, targets)

    def _outcomes(self, reach: Reach, call: Call, source: str) -> dict[_Outcome, int]:
        """All targets that the call can have, by what becomes of it there."""
        targets = self._targets(call.service, source)
        found = dict[_Outcome, int]()
        left = targets
        for way in reach.ways(call, source, lambda way: True):
            granted = way.targets & targets & self._carried_out(call.service, way)
            if granted:
                outcome = _Outcome.of(way)
                found[outcome] = found.get(outcome, 0) | granted
                left &= ~granted
        found[_DENY] = left
        return found

    def _targets(self, service: str, source: str) -> int:
        """Those that a call which dom0 carries out can have; of others all but the caller itself."""
        entry = self._entries.get(service)
        if entry is None:
            possible = self._everything
        else:
            possible = self._dom0 if entry.scope == "global" else self._qubes
        return possible & ~(1 << self._world.number(source)) if source in self._world else possible

    def _carried_out(self, service: str, way: Way) -> int:
        """The targets with which the call gets to who carries it out."""
        if service not in self._entries or isinstance(way.rule, DelegationRule):
            return self._everything
        redirect = way.action.target
        if redirect is None:
            return self._dom0
        return self._everything if redirect.token in DOM0_TEXTS else 0

    def _chooses_otherwise(self, outcome: _Outcome, call: Call, source: str, targets: int) -> bool:
        """Whether other choices are given to the user; they are the same for all targets of a rule."""
        if outcome.verdict != "ask":
            return False
        assert isinstance(call.argument, str)
        request = Request(call.service, call.argument, source, self.tokens[lowest(targets)])
        old, new = (decide(policy, request, self._world) for policy in self._policies)
        return isinstance(old, Asked) and isinstance(new, Asked) and old.targets != new.targets


class _Calls:
    """The calls that differing rules speak of and their sources, each once, as far as the bounds go.

    Attributes:
        whole: whether they went far enough; known in the end.
    """

    def __init__(
        self, before: Policy, after: Policy, world: World, catalogue: Catalogue, callers: Iterable[str]
    ) -> None:
        old, new = differing(before.rules, after.rules)
        self._rules = (*new, *old)
        self.whole = True
        self._world = world
        self._arguments = _named_arguments((*before.rules, *after.rules))
        self._services = sorted({*self._arguments, *catalogue.entries, ANY})
        self._callers = [name for name in world.names if name != DOM0]
        self._callers += sorted(set(callers).difference(world.names))

    def __iter__(self) -> Iterator[tuple[Call, str]]:
        seen = set[tuple[Call, str]]()
        pairs = 0
        for rule in self._rules:
            pairs += len(self._callers)
            if pairs > MOST_PAIRS:
                self.whole = False
                return
            sources = [source for source in self._callers if self._speaks(rule, source)]
            # One call after the other: what its sources have in common is found once.
            for service in self._covered(rule):
                for argument, source in self._by(rule, service, sources):
                    found = Call(service, argument), source
                    if found in seen:
                        continue
                    if len(seen) == MOST:
                        self.whole = False
                        return
                    seen.add(found)
                    yield found

    def _speaks(self, rule: AnyRule, source: str) -> bool:
        resident = self._world.resident(source)
        if resident is None:
            return speaks_of(rule, source_keys(source), "")
        return speaks_of(rule, resident.keys, source)

    def _covered(self, rule: AnyRule) -> list[str]:
        if not isinstance(rule, DelegationRule):
            return self._services if rule.service == ANY else [rule.service]
        others = [f"{head}{ANY}" for head in rule.reach.services.globs if head and not guard_of(head)]
        return [service for service in (*self._services, *others) if rule.covers_service(service)]

    def _by(self, rule: AnyRule, service: str, sources: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Each argument with the sources: those that some rule names, and one for all others."""
        if isinstance(rule, DelegationRule) and rule.reach.arguments.qubes is not None:
            for source in sources:
                named = rule.reach.arguments.qubes.bound(source).bits(self._world)
                yield from ((f"+{name}", source) for name in self._world.selected(named))
            return
        yield from product(self._argument(rule, service), sources)

    def _argument(self, rule: AnyRule, service: str) -> list[str]:
        named = {*self._arguments.get(service, ()), *self._arguments.get(ANY, ())}
        known = sorted({*named, "+", *(("+*",) if "+" in named else ())})
        if not isinstance(rule, DelegationRule):
            return known if rule.argument == ANY else [rule.argument]
        globs = [f"+{head.removeprefix('+')}" for head in rule.reach.arguments.globs]
        return [*dict.fromkeys([one for one in known if rule.covers_argument(one)] + globs)]


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
