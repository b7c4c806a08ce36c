"""The rules that a request may meet once its service, argument and source are known.

Rules of both languages lie in one order. A rule whose target is settled by one key is found by that key; one
that asks for more is filed under a key that whatever it matches must have, and looked at there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple

from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.expression import Both, Expression, Is, Not, alternatives, plain_keys
from policy_engine.model import Action, Allow, Deny, Selector
from policy_engine.world import EXISTING, World, selector_key


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule of the dialect asks of a request besides service, argument text and source; all of it bound
    to the caller.

    Attributes:
        target: of the requested target.
        frame: of the requested target as well, where the rule is framed; a disposable counts as its template.
        arguments: of the qube that the argument names.
    """

    target: Expression
    frame: Expression | None
    arguments: tuple[Expression, ...]

    def bits(self, world: World, argument: frozenset[str]) -> int:
        """The qubes of the world for which it holds as targets."""
        if not all(one.matches(argument) for one in self.arguments):
            return 0
        bits = self.target.bits(world)
        return bits if self.frame is None else bits & self.frame.bits(world)


class Case(NamedTuple):
    """One of the alternatives of a condition's target, with the rest of the condition.

    Attributes:
        position: of the rule among those of the plan.
        needs, bars: keys that the target has all, and has none of.
        others: what else it must match.
        frame, arguments: as of the condition.
    """

    position: int
    needs: frozenset[str]
    bars: frozenset[str]
    others: tuple[Expression, ...]
    frame: Expression | None
    arguments: tuple[Expression, ...]

    @classmethod
    def of(cls, position: int, target: Expression, condition: Condition) -> Case:
        needs: set[str] = set()
        bars: set[str] = set()
        others: list[Expression] = []
        for part in target.parts if isinstance(target, Both) else (target,):
            barred = plain_keys(part.part) if isinstance(part, Not) else None
            if isinstance(part, Is):
                needs.add(intern(part.key))
            elif barred is not None:
                needs.add(EXISTING)
                bars.update(map(intern, barred))
            else:
                others.append(part)
        return cls(
            position,
            frozenset(needs),
            frozenset(bars),
            tuple(others),
            condition.frame,
            condition.arguments,
        )

    def holds(self, target: frozenset[str], framed: frozenset[str], argument: frozenset[str]) -> bool:
        """Whether it holds for things with these keys; ``framed`` are the target's as frames see it."""
        _, needs, bars, others, frame, arguments = self
        return (
            needs <= target
            and bars.isdisjoint(target)
            and (not others or all(one.matches(target) for one in others))
            and (frame is None or frame.matches(framed))
            and (not arguments or all(one.matches(argument) for one in arguments))
        )


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
        cases: what other rules ask for, by a key of the targets that they match, each in order.
        keys: those of ``first`` and of ``cases``. A target with none of them meets no rule.
        judges_arguments: whether some condition asks about the qube that the argument names.
    """

    __slots__ = (
        "_conditions",
        "_effects",
        "_offers",
        "_spans",
        "cases",
        "first",
        "judges_arguments",
        "keys",
        "rules",
    )

    def __init__(self, rules: Sequence[AnyRule], source: frozenset[str], name: str) -> None:
        self.first: dict[str, int] = {}
        self.cases: dict[str, list[Case]] = {}
        self._conditions: dict[int, Condition] = {}
        self.judges_arguments = False
        self._spans: dict[int, Span] = {}
        kept = [rule for rule in rules if speaks_of(rule, source, name)]
        self.rules: Sequence[AnyRule] = kept
        for position, rule in enumerate(kept):
            if isinstance(rule, DelegationRule):
                self._file(position, rule, name)
            else:
                self.first.setdefault(intern(selector_key(rule.target)), position)
        self.keys = frozenset((*self.first, *self.cases))
        self._effects: list[Effect] | None = None
        self._offers: list[tuple[Selector | Span, bool]] | None = None

    def _file(self, position: int, rule: DelegationRule, name: str) -> None:
        target = rule.reach.target.bound(name)
        frame = None if rule.frame is None else rule.frame.target.bound(name)
        self._spans[position] = Span(target, frame)
        arguments = tuple(
            reach.arguments.qubes.bound(name) for reach in rule.reaches() if reach.arguments.qubes is not None
        )
        self.judges_arguments = self.judges_arguments or bool(arguments)
        condition = Condition(target, frame, arguments)
        for part in alternatives(target):
            if isinstance(part, Is) and frame is None and not arguments:
                self.first.setdefault(intern(part.key), position)
                continue
            self._conditions[position] = condition
            case = Case.of(position, part, condition)
            for key in part.anchors() - self.first.keys():
                self.cases.setdefault(intern(key), []).append(case)

    def earliest(
        self,
        matching: frozenset[str],
        target: frozenset[str],
        framed: frozenset[str],
        argument: frozenset[str],
    ) -> int | None:
        """The position of the first rule for things with these keys (see ``Case.holds``); ``None`` if
        there is none.

        Args:
            matching: those of the target's keys that are among ``keys``.
        """
        none = best = len(self.rules)
        for key in matching:
            position = self.first.get(key, none)
            if position < best:
                best = position
        for key in matching:
            # What is settled already spares most of these.
            for case in self.cases.get(key, ()):
                if case.position >= best:
                    break
                if case.holds(target, framed, argument):
                    best = case.position
                    break
        return best if best < none else None

    def effects(self) -> list[Effect]:
        """In order, what each rule decides, and the target keys that come to the same as its own."""
        if self._effects is None:
            self._effects = list(self._ordered())
        return self._effects

    def each(self) -> Iterator[tuple[int, Effect]]:
        """In order, with its position, what each rule decides that can decide anything."""
        settled: dict[int, list[str]] = {}
        for key, position in self.first.items():
            settled.setdefault(position, []).append(key)
        for position in sorted({*settled, *self._conditions}):
            effect = Effect(self.rules[position], settled.get(position, []), self._conditions.get(position))
            yield position, effect

    def _ordered(self) -> list[Effect]:
        effects: list[Effect] = []
        # Rules for two names never speak of the same qube. So a name can join what was last said with the
        # same outcome, as long as only names stand between.
        joinable: dict[Allow | None, Effect] = {}
        for _, one in self.each():
            rule = one.rule
            if isinstance(rule, DelegationRule):
                effects.append(one)
                joinable.clear()
                continue
            (key,) = one.keys
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
