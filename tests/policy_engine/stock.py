"""Rules of a policy that has nothing of the dialect in it."""

from __future__ import annotations

from collections.abc import Iterable

from policy_engine import AnyRule, Rule


def stock(rules: Iterable[AnyRule]) -> list[Rule]:
    """These very rules. Fails where one is of the dialect."""
    found = list(rules)
    mine = [rule for rule in found if isinstance(rule, Rule)]
    assert mine == found
    return mine
