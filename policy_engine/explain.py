"""Why a decision is as it is: the rule that decided, and the rules before it that nearly did."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from policy_engine.decide import decide, prepare, source_keys, target_keys
from policy_engine.decision import Decision, Denied, Request
from policy_engine.model import ANY, Inclusion, Rule
from policy_engine.policy import Policy
from policy_engine.world import World, selector_key

Field = Literal["service", "argument", "source", "target"]


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A rule that would have decided, had this one field of it matched."""

    rule: Rule
    field: Field


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and how it came about.

    Attributes:
        target: the target that rules were matched with; ``None`` if the request was denied before any was.
        near_misses: in order of evaluation; they end where a rule decided.
    """

    decision: Decision
    target: str | None
    near_misses: tuple[NearMiss, ...]


def explain(policy: Policy, request: Request, world: World) -> Explanation:
    """What ``decide`` says, and why. Looks at every rule, so it is for people, not for each call."""
    decision = decide(policy, request, world)
    if isinstance(decision, Denied) and decision.rule is None and decision.kind != "no-rule":
        return Explanation(decision, None, ())
    target = request.target if request.target in world else prepare(request.target, world)
    assert isinstance(target, str), "a target that is refused ends in a denial without a rule"
    source = request.requested_source or request.source
    sources = _keys(source, world) or source_keys(source)
    targets = _keys(target, world) or target_keys(target, source, world)
    found = []
    for rule in policy.rules:
        missed = list(_missed(rule, request, sources, targets))
        if not missed:
            break
        if len(missed) == 1:
            found.append(NearMiss(rule, missed[0]))
    return Explanation(decision, target, tuple(found))


def inclusions(rule: Rule) -> Iterator[Inclusion]:
    """The directives that brought the rule in, the nearest first; none for a file of a policy directory."""
    inclusion = rule.included_from
    while inclusion is not None:
        yield inclusion
        inclusion = inclusion.within


def _keys(token: str, world: World) -> frozenset[str]:
    resident = world.residents.get(token)
    return frozenset() if resident is None else resident.keys


def _missed(
    rule: Rule, request: Request, sources: frozenset[str], targets: frozenset[str]
) -> Iterator[Field]:
    """The fields of the rule that do not match."""
    if rule.service not in (ANY, request.service):
        yield "service"
    if rule.argument not in (ANY, request.argument):
        yield "argument"
    if selector_key(rule.source) not in sources:
        yield "source"
    if selector_key(rule.target) not in targets:
        yield "target"
