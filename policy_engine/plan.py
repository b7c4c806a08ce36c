"""The rules that a request may meet once its service, argument and source are known.

Rules of both languages lie in one order. A rule whose target is settled by one key is found by that key; one
that asks for more is filed under a key that whatever it matches must have, and looked at there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.expression import Expression, plain_keys
from policy_engine.model import Action, Allow, Deny, Selector
from policy_engine.world import World, selector_key


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule of the dialect asks of a request besides service, argument text and source; all of it bound
    to the caller.

    Attributes:
        position: of the rule among those of the plan.
        target: of the requested target.
        frame: of the requested target as well, where the rule is framed; a disposable counts as its template.
        arguments: of the qube that the argument names.
    """

    position: int
    target: Expression
    frame: Expression | None
    arguments: tuple[Expression, ...]

    def holds(self, target: frozenset[str], framed: frozenset[str], argument: frozenset[str]) -> bool:
        """Whether it holds for things with these keys; ``framed`` are the target's as frames see it."""
        return (
            self.target.matches(target)
            and (self.frame is None or self.frame.matches(framed))
            and all(one.matches(argument) for one in self.arguments)
        )

    def bits(self, world: World, argument: frozenset[str]) -> int:
        """The qubes of the world for which it holds as targets."""
        if not all(one.matches(argument) for one in self.arguments):
            return 0
        bits = self.target.bits(world)
        return bits if self.frame is None else bits & self.frame.bits(world)


@dataclass(frozen=True, slots=True)
class Span:
    """The targets of which a rule of the dialect speaks, bound to the caller: its own, and its frame's."""

    target: Expression
    frame: Expression | None


@dataclass(frozen=True, slots=True)
class Effect:
    """For ``visible``: what a rule decides, by the keys of targets or by a condition."""

    rule: AnyRule
    keys: list[str]
    condition: Condition | None = None

    def bits(self, world: World, argument: frozenset[str]) -> int:
        """The qubes of the world that it speaks of as targets."""
        bits = world.matching(self.keys)
        return bits if self.condition is None else bits | self.condition.bits(world, argument)


class Plan:
    """The rules in order, and ways to find the first that matches.

    Attributes:
        rules: all of them, whatever their target.
        first: for each key of a target, the position in ``rules`` of the first rule that it settles; no later
            rule with the same key can decide anything.
        keys: the keys of ``first``.
        conditions: the rules that ask for more, by a key of the targets that they match, each in order.
        anchors: the keys of ``conditions``.
        judges_arguments: whether some condition asks about the qube that the argument names.
    """

    __slots__ = (
        "_effects",
        "_offers",
        "_spans",
        "anchors",
        "conditions",
        "first",
        "judges_arguments",
        "keys",
        "rules",
    )

    def __init__(self, rules: Sequence[AnyRule], source: frozenset[str], name: str) -> None:
        self.first: dict[str, int] = {}
        self.conditions: dict[str, list[Condition]] = {}
        self.judges_arguments = False
        self._spans: dict[int, Span] = {}
        kept = [rule for rule in rules if speaks_of(rule, source, name)]
        self.rules: Sequence[AnyRule] = kept
        for position, rule in enumerate(kept):
            if isinstance(rule, DelegationRule):
                self._file(position, rule, name)
            else:
                self.first.setdefault(selector_key(rule.target), position)
        self.keys = frozenset(self.first)
        self.anchors = frozenset(self.conditions)
        self._effects: list[Effect] | None = None
        self._offers: list[tuple[Selector | Span, bool]] | None = None

    def _file(self, position: int, rule: DelegationRule, name: str) -> None:
        target = rule.reach.target.bound(name)
        frame = None if rule.frame is None else rule.frame.target.bound(name)
        self._spans[position] = Span(target, frame)
        keys = plain_keys(target)
        arguments = tuple(
            reach.arguments.qubes.bound(name) for reach in rule.reaches() if reach.arguments.qubes is not None
        )
        if keys is not None and not arguments and frame is None:
            for key in keys:
                self.first.setdefault(key, position)
            return
        self.judges_arguments = self.judges_arguments or bool(arguments)
        condition = Condition(position, target, frame, arguments)
        for key in target.anchors():
            self.conditions.setdefault(key, []).append(condition)

    def matching(
        self, target: frozenset[str], framed: frozenset[str], argument: frozenset[str]
    ) -> AnyRule | None:
        """The first rule for things with these keys (see ``Condition.holds``); ``None`` if there is none."""
        settled = self.keys & target
        best = min(map(self.first.__getitem__, settled)) if settled else len(self.rules)
        for key in self.anchors & target:
            for condition in self.conditions[key]:
                if condition.position >= best:
                    break
                if condition.holds(target, framed, argument):
                    best = condition.position
                    break
        return self.rules[best] if best < len(self.rules) else None

    def effects(self) -> list[Effect]:
        """In order, what each rule decides, and the target keys that come to the same as its own."""
        if self._effects is None:
            self._effects = list(self._ordered())
        return self._effects

    def _ordered(self) -> list[Effect]:
        settled: dict[int, list[str]] = {}
        for key, position in self.first.items():
            settled.setdefault(position, []).append(key)
        conditional = self._by_position()
        effects: list[Effect] = []
        # Rules for two names never speak of the same qube. So a name can join what was last said with the
        # same outcome, as long as only names stand between.
        joinable: dict[Allow | None, Effect] = {}
        for position in sorted({*settled, *conditional}):
            rule, keys = self.rules[position], settled.get(position, [])
            if isinstance(rule, DelegationRule):
                effects.append(Effect(rule, keys, conditional.get(position)))
                joinable.clear()
                continue
            (key,) = keys
            outcome = rule.action if isinstance(rule.action, Allow) else None
            effect = joinable.get(outcome)
            named = not key.startswith(("@", "*", "uuid:"))
            if effect is None or not (named or effect is effects[-1]):
                effect = Effect(rule, [])
                effects.append(effect)
            effect.keys.append(key)
            if not named:
                joinable.clear()
            joinable[outcome] = effect
        return effects

    def _by_position(self) -> dict[int, Condition]:
        return {one.position: one for filed in self.conditions.values() for one in filed}

    def decided(self, rule: AnyRule, world: World, argument: frozenset[str] = frozenset()) -> int:
        """The qubes as targets for which just this rule decides, as bits."""
        undecided = world.matching(("*",))
        for effect in self.effects():
            matched = effect.bits(world, argument) & undecided
            if effect.rule is rule:
                return matched
            undecided ^= matched
        return 0

    def offers(self) -> list[tuple[Selector | Span, bool]]:
        """For ``choices`` of the stock language: in order, what a rule speaks of, and whether it offers or
        removes that. A rule of the dialect removes: who wants what it grants has to meet its conditions."""
        if self._offers is None:
            offers: dict[Selector | Span, bool] = {}
            for position, rule in enumerate(self.rules):
                if isinstance(rule, DelegationRule):
                    offers.setdefault(self._spans[position], False)
                else:
                    offers.setdefault(_subject(rule.action, rule.target), not isinstance(rule.action, Deny))
            self._offers = list(offers.items())
        return self._offers


def speaks_of(rule: AnyRule, source: frozenset[str], name: str) -> bool:
    """Whether a source with these keys, a qube of this name, is one that the rule and its frame are for."""
    if isinstance(rule, DelegationRule):
        return all(reach.source.bound(name).matches(source) for reach in rule.reaches())
    return selector_key(rule.source) in source


def _subject(action: Action, target: Selector) -> Selector:
    return target if isinstance(action, Deny) or action.target is None else action.target
