"""Whether two lists of rules decide the same, whatever is called and whichever qubes there are.

The answer is on the safe side: a yes is certain. Two decisions are the same if they differ in the rule that
made them alone; that nothing matches is the same as a plain ``deny``.
"""

from __future__ import annotations

from collections.abc import Iterable

from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.model import ANY, Action, Deny, Named, Rule, Selector

MOST = 2_000
"""Rules that may have changed places; of more it is not found out."""

Outline = tuple[str, Selector, Selector, Action] | DelegationRule
"""What a rule for one service says, wherever it stands."""


def same(service: str, before: Iterable[AnyRule], after: Iterable[AnyRule]) -> bool:
    """Whether the policies with these rules, in order, decide the same about a service.

    Rules may have changed places that no request meets both, or that say the same.
    """
    old, new = _essence(service, before), _essence(service, after)
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    if len(old) != len(new) or set(old) != set(new) or len(old) > MOST:
        return not old and not new
    places = {one: place for place, one in enumerate(new)}
    return all(
        places[first] < places[second] or _commute(first, second)
        for place, first in enumerate(old)
        for second in old[place + 1 :]
    )


def outline(rule: AnyRule) -> Outline:
    return (
        rule if isinstance(rule, DelegationRule) else (rule.argument, rule.source, rule.target, rule.action)
    )


def applies(rule: AnyRule, service: str) -> bool:
    if isinstance(rule, Rule):
        return rule.service in (ANY, service)
    return rule.covers_service(service)


def _essence(service: str, rules: Iterable[AnyRule]) -> list[Outline]:
    """What is said of the service, each thing once: whoever says it again is not heard. At the end a plain
    ``deny`` says no more than silence."""
    said = list(dict.fromkeys(outline(rule) for rule in rules if applies(rule, service)))
    while said and isinstance(said[-1], tuple) and said[-1][-1] == Deny():
        del said[-1]
    return said


def _commute(first: Outline, second: Outline) -> bool:
    """Whether it does not matter which of the two comes first."""
    if isinstance(first, DelegationRule) or isinstance(second, DelegationRule):
        return False
    arguments = {first[0], second[0]}
    if ANY not in arguments and len(arguments) == 2:
        return True
    return first[3] == second[3] or _are_two(first[1], second[1])


def _are_two(first: Selector, second: Selector) -> bool:
    """Whether they name two callers, none of whom is both."""
    names = {one.name for one in (first, second) if isinstance(one, Named)}
    return len(names) == 2 and not any(name.startswith("uuid:") for name in names)
