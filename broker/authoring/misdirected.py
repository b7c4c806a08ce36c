"""Rules that let calls of the Admin API go where nobody carries them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policy_engine import Allow, AnyRule, Rule
from qubesd.model.state import DOM0

_CARRIED_OUT = ("admin.", "policy.")
_DOM0 = frozenset({"*", "@adminvm", DOM0})
"""Targets that stand for dom0, among others or alone."""


def misdirected(rules: Iterable[AnyRule]) -> Iterator[str]:
    """A sentence for each rule whose calls go to another qube than dom0, whoever makes them. The dialect
    has no such rules."""
    for rule in rules:
        if not isinstance(rule, Rule) or not rule.service.startswith(_CARRIED_OUT):
            continue
        if not isinstance(rule.action, Allow):
            continue
        goes_to = rule.target if rule.action.target is None else rule.action.target
        if goes_to.token not in _DOM0:
            yield (
                f"{rule.file}:{rule.line}: dom0 carries {rule.service} out, and this rule lets it go to "
                f"{goes_to.token}, where it is refused: it needs target=dom0"
            )
