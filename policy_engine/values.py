"""``value=``: what a payload must be for a rule of the dialect to allow the call.

The daemon hands over the payload in canonical form, key by key (``catalogue.py``); where the payload is one
value, its key is ``""``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policy_engine.catalogue import Value
from policy_engine.expression import HOLE, Expression, can_stand_before
from policy_engine.world import World


@dataclass(frozen=True, slots=True)
class TextPattern:
    """A text, or with ``open`` whatever begins with it; the caller's name may stand in it as ``{source}``."""

    text: str
    open: bool = False

    def admits(self, value: str, source: str) -> bool:
        before, hole, after = self.text.partition(HOLE)
        if hole and not can_stand_before(source, after):
            return False
        wanted = before + source + after if hole else before
        return value.startswith(wanted) if self.open else value == wanted


@dataclass(frozen=True, slots=True)
class Texts:
    """One of these texts."""

    patterns: tuple[TextPattern, ...]
    none: bool = False

    def admits(self, value: Value, source: str, world: World) -> bool:
        if value is None:
            return self.none
        return isinstance(value, str) and any(pattern.admits(value, source) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A whole number in one of these ranges, ends included."""

    ranges: tuple[tuple[int, int], ...]
    none: bool = False

    def admits(self, value: Value, source: str, world: World) -> bool:
        if value is None:
            return self.none
        return isinstance(value, int) and any(low <= value <= high for low, high in self.ranges)


@dataclass(frozen=True, slots=True)
class Qubes:
    """A qube that the expression matches. One that does not exist is none of them."""

    expression: Expression
    none: bool = False

    def admits(self, value: Value, source: str, world: World) -> bool:
        if value is None:
            return self.none
        resident = world.resident(value) if isinstance(value, str) else None
        return resident is not None and self.expression.bound(source).matches(resident.keys)


Matcher = Texts | Numbers | Qubes


@dataclass(frozen=True, slots=True)
class Values:
    """All that a rule says of the payload.

    Attributes:
        text: as it is written, without ``value=``.
        keys: what each key must be. One that is not here must be absent, and one that is absent must be
            allowed to be ``none``.
    """

    text: str
    keys: tuple[tuple[str, Matcher], ...]

    def admit(self, given: Mapping[str, Value], source: str, world: World) -> bool:
        known = dict(self.keys)
        if any(value is not None and key not in known for key, value in given.items()):
            return False
        return all(matcher.admits(given.get(key), source, world) for key, matcher in self.keys)

    def select(self, qube: str, given: Mapping[str, Value]) -> bool:
        """Whether the qube was given where the rule says by an expression which qubes may be."""
        return any(isinstance(matcher, Qubes) and given.get(key) == qube for key, matcher in self.keys)

    def expressions(self) -> Iterator[Expression]:
        for _, matcher in self.keys:
            if isinstance(matcher, Qubes):
                yield matcher.expression
