"""The rules in which two policies differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from policy_engine.delegation import AnyRule, DelegationRule

_MOST_ALIKE = 1_000_000
"""Pairs of rules that say the same, beyond which what stayed among what changed is not looked for."""


def differing(before: Sequence[AnyRule], after: Sequence[AnyRule]) -> tuple[list[AnyRule], list[AnyRule]]:
    """The rules that only one of both has, or has in another place among the others, wherever they are
    written. A call that is decided otherwise meets one of them."""
    numbers = dict[object, int]()
    old, new = (
        [numbers.setdefault(_essence(rule), len(numbers)) for rule in rules] for rules in (before, after)
    )
    least = min(len(old), len(new))
    head = next((place for place in range(least) if old[place] != new[place]), least)
    least -= head
    tail = next((place for place in range(least) if old[-1 - place] != new[-1 - place]), least)
    gone, come = old[head : len(old) - tail], new[head : len(new) - tail]
    kept, stayed = set[int](), set[int]()
    counts, others = Counter(gone), Counter(come)
    if sum(count * others[one] for one, count in counts.items()) <= _MOST_ALIKE:
        for block in SequenceMatcher(None, gone, come, autojunk=False).get_matching_blocks():
            kept.update(range(block.a, block.a + block.size))
            stayed.update(range(block.b, block.b + block.size))
    return (
        [before[head + place] for place in range(len(gone)) if place not in kept],
        [after[head + place] for place in range(len(come)) if place not in stayed],
    )


def _essence(rule: AnyRule) -> object:
    """What a rule says, wherever it is written."""
    if isinstance(rule, DelegationRule):
        return rule.reach, rule.frame, rule.action, rule.value, rule.remember
    return rule.service, rule.argument, rule.source, rule.target, rule.action
