"""A whole policy in force: its rules in order, indexed by service, then argument, then source.

The index is made once for each policy, its finer parts when they are first needed. Every part is named by
texts of the policy itself, so callers who send endless new arguments and targets add nothing to it.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from policy_engine.model import ANY, Action, Allow, Deny, Rule, Selector
from policy_engine.world import selector_key

MAX_INDEXED = 400_000
"""Rules that the finer parts of one policy's index may hold, counted as often as they are held; then they are
made anew. A policy that needs more is judged correctly, only slower."""


class Plan:
    """The rules that a request may meet once its service, argument and source are known, in order.

    Attributes:
        rules: all of them, whatever their target.
        first: for each key of a target, the position in ``rules`` of the first rule with it; no later rule
            with the same key can decide anything.
        keys: the keys of ``first``.
    """

    __slots__ = ("_effects", "_offers", "first", "keys", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self.first: dict[str, int] = {}
        for position, rule in enumerate(rules):
            self.first.setdefault(selector_key(rule.target), position)
        self.keys = frozenset(self.first)
        self._effects: list[tuple[Rule, list[str]]] | None = None
        self._offers: list[tuple[Selector, bool]] | None = None

    def effects(self) -> list[tuple[Rule, list[str]]]:
        """For ``visible``: in order, the target keys with the same outcome, and a rule that has it."""
        if self._effects is None:
            runs = groupby(self.first.items(), lambda item: self._grant(item[1]))
            effects = [list(run) for _, run in runs]
            self._effects = [(self.rules[run[0][1]], [key for key, _ in run]) for run in effects]
        return self._effects

    def _grant(self, position: int) -> Allow | None:
        action = self.rules[position].action
        return action if isinstance(action, Allow) else None

    def offers(self) -> list[tuple[Selector, bool]]:
        """For ``choices``: in order, what a rule speaks of, and whether it offers that or removes it."""
        if self._offers is None:
            offers: dict[Selector, bool] = {}
            for rule in self.rules:
                offers.setdefault(_subject(rule.action, rule.target), not isinstance(rule.action, Deny))
            self._offers = list(offers.items())
        return self._offers


def _subject(action: Action, target: Selector) -> Selector:
    return target if isinstance(action, Deny) or action.target is None else action.target


class _Group:
    """The rules for one service and argument, wildcards included, in order."""

    __slots__ = ("by_source", "plans", "rules", "sources")

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self.by_source: dict[str, list[int]] = {}
        for position, rule in enumerate(rules):
            self.by_source.setdefault(selector_key(rule.source), []).append(position)
        self.sources = frozenset(self.by_source)
        self.plans: dict[frozenset[str], Plan] = {}


class Policy:
    """An immutable policy. ``load`` makes it.

    Attributes:
        rules: in order of evaluation.
        files: the paths that were read, in order of their first reading.
        warnings: what the log should tell of the loading, location first.
    """

    __slots__ = ("_groups", "_indexed", "_pairs", "files", "rules", "warnings")

    def __init__(
        self, rules: Iterable[Rule], files: Iterable[str] = (), warnings: Iterable[str] = ()
    ) -> None:
        self.rules = tuple(rules)
        self.files = tuple(files)
        self.warnings = tuple(warnings)
        self._pairs: dict[str, dict[str, list[int]]] = {ANY: {}}
        for position, rule in enumerate(self.rules):
            arguments = self._pairs.get(rule.service)
            if arguments is None:
                arguments = self._pairs[rule.service] = {}
            positions = arguments.get(rule.argument)
            if positions is None:
                arguments[rule.argument] = [position]
            else:
                positions.append(position)
        self._groups: dict[tuple[str, str], _Group] = {}
        self._indexed = 0

    def plan(self, service: str, argument: str, source: frozenset[str]) -> Plan:
        """The rules for this service and argument and a source with these keys."""
        arguments = self._pairs.get(service)
        if arguments is None:
            service = argument = ANY
        elif argument not in arguments:
            argument = ANY
        group = self._groups.get((service, argument)) or self._group(service, argument)
        sources = group.sources & source
        return group.plans.get(sources) or self._plan(group, sources)

    def _group(self, service: str, argument: str) -> _Group:
        positions = set(self._pairs[ANY].get(ANY, ()))
        positions.update(self._pairs[service].get(ANY, ()), self._pairs[service].get(argument, ()))
        self._make_room(len(positions))
        group = self._groups[service, argument] = _Group([self.rules[place] for place in sorted(positions)])
        return group

    def _plan(self, group: _Group, sources: frozenset[str]) -> Plan:
        positions = sorted(place for key in sources for place in group.by_source[key])
        self._make_room(len(positions))
        plan = group.plans[sources] = Plan([group.rules[place] for place in positions])
        return plan

    def _make_room(self, rules: int) -> None:
        self._indexed += rules + 1
        if self._indexed > MAX_INDEXED:
            self._groups.clear()
            self._indexed = rules + 1
