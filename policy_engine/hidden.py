"""Whether a qube is there for a caller: hidden is a qube on which nothing is allowed or asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policy_engine.decide import decide
from policy_engine.decision import Denied, Request
from policy_engine.delegation import Arguments, DelegationRule
from policy_engine.model import ANY
from policy_engine.policy import Policy
from policy_engine.targets import caller_name, source_keys
from policy_engine.world import World, selector_key

_UNNAMED = "//"
"""No rule can name this, neither as a service nor as an argument."""


def hidden(policy: Policy, world: World, source: str, qube: str) -> bool:
    """Whether no rule allows or asks the source any call on the qube, so that for the source it is not there.

    It tries the calls that those rules name which speak of both, and one that they cover without naming it;
    no other call can make a difference.
    """
    return not any(
        not isinstance(decide(policy, Request(service, argument, source, qube), world), Denied)
        for service, argument in _calls(policy, world, source, qube)
    )


def _calls(policy: Policy, world: World, source: str, qube: str) -> Iterator[tuple[str, str]]:
    caller, there = world.resident(source), world.resident(qube)
    name = caller_name(source, world)
    sources = source_keys(source) if caller is None else caller.keys
    targets = frozenset[str]() if there is None else there.keys
    for rule in policy.granting(sources, name):
        if isinstance(rule, DelegationRule):
            if all(reach.target.bound(name).matches(targets) for reach in rule.reaches()):
                yield from _of_rule(rule, name, world, policy)
        elif selector_key(rule.target) in targets:
            yield rule.service.replace(ANY, _UNNAMED), rule.argument.replace(ANY, f"+{_UNNAMED}")


def _of_rule(rule: DelegationRule, name: str, world: World, policy: Policy) -> Iterator[tuple[str, str]]:
    services = {
        service for reach in rule.reaches() for service in _texts(reach.services.names, reach.services.globs)
    }
    for service in sorted(services):
        for reach in rule.reaches():
            for argument in _arguments(reach.arguments, service, name, world, policy):
                yield service, argument


def _texts(names: Iterable[str], globs: Iterable[str]) -> Iterator[str]:
    yield from names
    yield from (f"{glob}{_UNNAMED}" for glob in globs)


def _arguments(arguments: Arguments, service: str, name: str, world: World, policy: Policy) -> Iterator[str]:
    if arguments.qubes is None:
        yield from (
            text if text[:1] == "+" else f"+{text}" for text in _texts(arguments.names, arguments.globs)
        )
        return
    if service in policy.served:
        # The name of a qube is an argument that names it, and a device of it as well.
        yield from (f"+{qube}" for qube in world.selected(arguments.qubes.bound(name).bits(world)))
