"""Whether a qube is there for a caller: hidden is a qube on which nothing is allowed or asked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from policy_engine.catalogue import GUARDED, Names
from policy_engine.decide import decide
from policy_engine.decision import Denied, Request
from policy_engine.delegation import DelegationRule
from policy_engine.model import ANY, Ask, Rule
from policy_engine.policy import Policy
from policy_engine.targets import caller_name, source_keys
from policy_engine.world import World, selector_key

_UNNAMED = "//"
"""No rule can name this, neither as a service nor as an argument."""

_UNNAMED_SERVICES = tuple(f"{guard}{_UNNAMED}" for guard in ("", *GUARDED))
"""What ``*`` of the stock language covers and no rule names; globs of the dialect tell these apart."""

MAX_TRIED = 200
"""Calls that are tried on one qube. A policy that names more, and grants none of these, hides the qube."""


def hidden(policy: Policy, world: World, source: str, qube: str) -> bool:
    """Whether no rule allows or asks the source any call on the qube, so that for the source it is not there.

    It tries the calls that those rules name which speak of both, and those that they cover without naming
    them; no other call can make a difference.
    """
    return all(
        isinstance(decide(policy, Request(service, argument, source, qube), world), Denied)
        for service, argument in islice(_distinct(_calls(policy, world, source, qube)), MAX_TRIED)
    )


def _distinct(calls: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    seen = set[tuple[str, str]]()
    for call in calls:
        if call not in seen:
            seen.add(call)
            yield call


def _calls(policy: Policy, world: World, source: str, qube: str) -> Iterator[tuple[str, str]]:
    caller, there = world.resident(source), world.resident(qube)
    name = caller_name(source, world)
    sources = source_keys(source) if caller is None else caller.keys
    targets = frozenset[str]() if there is None else there.keys
    granting = tuple(policy.granting(sources, name))
    asking: list[Rule] = []
    for rule in granting:
        if isinstance(rule, DelegationRule):
            if all(reach.target.bound(name).matches(targets) for reach in rule.reaches()):
                yield from _of_rule(rule, name, world, policy)
        elif selector_key(rule.target) in targets:
            argument = rule.argument.replace(ANY, f"+{_UNNAMED}")
            for service in _UNNAMED_SERVICES if rule.service == ANY else (rule.service,):
                yield service, argument
            if isinstance(rule.action, Ask) and ANY in (rule.service, rule.argument):
                asking.append(rule)
    for rule in asking:
        # What it leaves to choose from depends on what other rules offer for the same call.
        for other in granting:
            if not isinstance(other, DelegationRule):
                yield from _offered_along(rule, other)


def _offered_along(rule: Rule, other: Rule) -> Iterator[tuple[str, str]]:
    """A call that both rules cover, if there is one that the other names."""
    services = {rule.service, other.service} - {ANY}
    arguments = {rule.argument, other.argument} - {ANY}
    if len(services) == 1 and len(arguments) <= 1:
        yield services.pop(), arguments.pop() if arguments else f"+{_UNNAMED}"


def _of_rule(rule: DelegationRule, name: str, world: World, policy: Policy) -> Iterator[tuple[str, str]]:
    texts = [argument for argument in _arguments(rule) if rule.covers_argument(argument)]
    qubes = [reach.arguments.qubes for reach in rule.reaches() if reach.arguments.qubes is not None]
    if not qubes:
        services = {service for service in _services(rule) if rule.covers_service(service)}
        yield from ((service, argument) for service in sorted(services) for argument in texts)
    elif policy.catalogue is not None:
        bits = world.matching((ANY,))
        for expression in qubes:
            bits &= expression.bound(name).bits(world)
        for service, entry in policy.catalogue.entries.items():
            if entry.names is Names.NOTHING or not rule.covers_service(service):
                continue
            yield from ((service, argument) for argument in texts)
            for qube in world.selected(bits):
                named = [f"+{qube}", f"+{qube}+{_UNNAMED}"] if entry.names is Names.DEVICE else [f"+{qube}"]
                yield from ((service, argument) for argument in named if rule.covers_argument(argument))


def _services(rule: DelegationRule) -> Iterator[str]:
    for reach in rule.reaches():
        yield from reach.services.names
        yield from (f"{glob}{_UNNAMED}" for glob in reach.services.globs)


def _arguments(rule: DelegationRule) -> Iterator[str]:
    """Those that the rule or its frame names, and one for each glob that no rule names."""
    for reach in rule.reaches():
        yield from sorted(reach.arguments.names)
        yield from (f"{glob or '+'}{_UNNAMED}" for glob in reach.arguments.globs)
