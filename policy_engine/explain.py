"""Why a decision is as it is: the rule that decided, and the rules before it that nearly did."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from policy_engine.confirm import out_of_reach
from policy_engine.decide import decide
from policy_engine.decision import Decision, DenialKind, Denied, Request
from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.model import ANY, Inclusion
from policy_engine.policy import Policy
from policy_engine.targets import argument_keys, caller_name, frame_keys, prepare, source_keys, target_keys
from policy_engine.world import World, selector_key

Field = Literal["service", "argument", "source", "target"]


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A rule that would have decided, had this one field of it matched."""

    rule: AnyRule
    field: Field


@dataclass(frozen=True, slots=True)
class Demands:
    """What a rule of the dialect asks of a call besides its four fields, before the call is carried out.

    Attributes:
        selects: the qubes in the target field, definitions and the caller's name filled in. Other qubes that
            the call touches must be among them, or be selected by the argument or the value.
        value: what the payload must be, as it is written; ``None`` for anything.
        framed_from, framed_to: the sources and targets of the frame, likewise; ``None`` without one.
        refusal: why it is denied whatever the payload is; ``None`` where that depends.
    """

    selects: str
    value: str | None
    framed_from: str | None
    framed_to: str | None
    refusal: DenialKind | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and how it came about.

    Attributes:
        target: the target that rules were matched with; ``None`` if the request was denied before any was.
        near_misses: in order of evaluation; they end where a rule decided.
        demands: ``None`` unless a rule of the dialect allows or asks.
    """

    decision: Decision
    target: str | None
    near_misses: tuple[NearMiss, ...]
    demands: Demands | None = None


def explain(policy: Policy, request: Request, world: World) -> Explanation:
    """What ``decide`` says, and why. Looks at every rule, so it is for people, not for each call."""
    decision = decide(policy, request, world)
    if isinstance(decision, Denied) and decision.rule is None and decision.kind != "no-rule":
        return Explanation(decision, None, ())
    target = request.target if request.target in world else prepare(request.target, world)
    assert isinstance(target, str), "a target that is refused ends in a denial without a rule"
    caller = _Asked.by(policy, request, target, world)
    found = []
    for rule in policy.rules:
        missed = list(caller.missed(rule))
        if not missed:
            break
        if len(missed) == 1:
            found.append(NearMiss(rule, missed[0]))
    return Explanation(decision, target, tuple(found), _demands(policy, decision, request, caller.name))


def _demands(policy: Policy, decision: Decision, request: Request, name: str) -> Demands | None:
    rule = decision.rule
    if isinstance(decision, Denied) or not isinstance(rule, DelegationRule):
        return None
    return Demands(
        rule.reach.target.bound(name).text,
        None if rule.value is None else rule.value.text,
        None if rule.frame is None else rule.frame.source.bound(name).text,
        None if rule.frame is None else rule.frame.target.bound(name).text,
        out_of_reach(policy, rule, request),
    )


def inclusions(rule: AnyRule) -> Iterator[Inclusion]:
    """The directives that brought the rule in, the nearest first; none for a file of a policy directory."""
    inclusion = rule.included_from
    while inclusion is not None:
        yield inclusion
        inclusion = inclusion.within


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as rules see it: its texts, and the keys of what it names."""

    request: Request
    name: str
    sources: frozenset[str]
    targets: frozenset[str]
    framed: frozenset[str]
    argument: frozenset[str]

    @classmethod
    def by(cls, policy: Policy, request: Request, target: str, world: World) -> "_Asked":
        source = request.requested_source or request.source
        return cls(
            request,
            caller_name(source, world),
            _keys(source, world) or source_keys(source),
            _keys(target, world) or target_keys(target, source, world),
            frame_keys(target, source, world),
            argument_keys(policy, request.service, request.argument, world),
        )

    def missed(self, rule: AnyRule) -> Iterator[Field]:
        """The fields of the rule that do not match; those of a frame count as the rule's own."""
        if isinstance(rule, DelegationRule):
            yield from self._missed_in_dialect(rule)
            return
        if rule.service not in (ANY, self.request.service):
            yield "service"
        if rule.argument not in (ANY, self.request.argument):
            yield "argument"
        if selector_key(rule.source) not in self.sources:
            yield "source"
        if selector_key(rule.target) not in self.targets:
            yield "target"

    def _missed_in_dialect(self, rule: DelegationRule) -> Iterator[Field]:
        if not rule.covers_service(self.request.service):
            yield "service"
        qubes = [reach.arguments.qubes for reach in rule.reaches() if reach.arguments.qubes is not None]
        named = all(one.bound(self.name).matches(self.argument) for one in qubes)
        if not (rule.covers_argument(self.request.argument) and named):
            yield "argument"
        if not all(reach.source.bound(self.name).matches(self.sources) for reach in rule.reaches()):
            yield "source"
        own = rule.reach.target.bound(self.name).matches(self.targets)
        if not own or (rule.frame and not rule.frame.target.bound(self.name).matches(self.framed)):
            yield "target"


def _keys(token: str, world: World) -> frozenset[str]:
    resident = world.resident(token)
    return frozenset() if resident is None else resident.keys
