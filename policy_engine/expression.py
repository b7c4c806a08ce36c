"""Qube expressions of the delegation dialect: which qubes a field speaks of.

An expression is a value. ``{source}`` in it is filled in by ``bound``; only what is bound can be matched. A
qube or another target is known to it by its keys (``world.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from policy_engine.model import DOM0_TEXTS
from policy_engine.world import EXISTING, World

HOLE = "{source}"
"""What stands for the caller's name in a tag or a name."""


def can_stand_before(source: str, after: str) -> bool:
    """Whether a caller's name tells where it ends with this text behind it. One that holds what ends it does
    not: ``a`` with ``_b`` behind it must not be what ``a_b`` is. Nor does the name of nobody."""
    return bool(source) and (not after or after[0] not in source)


@dataclass(frozen=True, slots=True)
class Is:
    """What carries one key: a token of a policy as it is written, dom0 in one spelling."""

    key: str

    @property
    def text(self) -> str:
        return self.key

    def bound(self, source: str) -> Expression:
        return self

    def matches(self, keys: frozenset[str]) -> bool:
        return self.key in keys

    def anchors(self) -> frozenset[str]:
        return frozenset((self.key,))

    def bits(self, world: World) -> int:
        return world.matching((self.key,))

    def atoms(self) -> Iterator[Is | OfCaller]:
        yield self


@dataclass(frozen=True, slots=True)
class OfCaller:
    """A key with the caller's name in it, such as ``@tag:created-by-{source}``."""

    before: str
    after: str

    @property
    def text(self) -> str:
        return f"{self.before}{HOLE}{self.after}"

    def bound(self, source: str) -> Expression:
        """Nothing for a caller whose name cannot stand here. Never dom0: naming it is the only way to it."""
        if not can_stand_before(source, self.after):
            return NOTHING
        key = f"{self.before}{source}{self.after}"
        return NOTHING if key in DOM0_TEXTS else Is(key)

    def matches(self, keys: frozenset[str]) -> bool:
        raise ValueError(f"{self.text} is not bound to a caller")

    def anchors(self) -> frozenset[str]:
        """That of everything: who calls is not known yet."""
        return frozenset("*")

    def bits(self, world: World) -> int:
        raise ValueError(f"{self.text} is not bound to a caller")

    def atoms(self) -> Iterator[Is | OfCaller]:
        yield self


@dataclass(frozen=True, slots=True)
class Either:
    """``a|b``: what one of the parts matches; nothing where there are none."""

    parts: tuple[Expression, ...]
    joint: ClassVar[str] = "|"

    @property
    def text(self) -> str:
        return self.joint.join(part.text for part in self.parts)

    def bound(self, source: str) -> Expression:
        return Either(tuple(part.bound(source) for part in self.parts))

    def matches(self, keys: frozenset[str]) -> bool:
        return any(part.matches(keys) for part in self.parts)

    def anchors(self) -> frozenset[str]:
        return frozenset().union(*(part.anchors() for part in self.parts))

    def bits(self, world: World) -> int:
        bits = 0
        for part in self.parts:
            bits |= part.bits(world)
        return bits

    def atoms(self) -> Iterator[Is | OfCaller]:
        for part in self.parts:
            yield from part.atoms()


@dataclass(frozen=True, slots=True)
class Both:
    """``a,b``: what all of the parts match."""

    parts: tuple[Expression, ...]
    joint: ClassVar[str] = ","

    @property
    def text(self) -> str:
        return self.joint.join(part.text for part in self.parts)

    def bound(self, source: str) -> Expression:
        return Both(tuple(part.bound(source) for part in self.parts))

    def matches(self, keys: frozenset[str]) -> bool:
        return all(part.matches(keys) for part in self.parts)

    def anchors(self) -> frozenset[str]:
        """Those of the part that says most: whatever the whole matches, each part does."""
        return min((part.anchors() for part in self.parts), key=_breadth)

    def bits(self, world: World) -> int:
        bits = self.parts[0].bits(world)
        for part in self.parts[1:]:
            bits &= part.bits(world)
        return bits

    def atoms(self) -> Iterator[Is | OfCaller]:
        for part in self.parts:
            yield from part.atoms()


@dataclass(frozen=True, slots=True)
class Not:
    """``!a``: every qube there is but dom0 that the part does not match."""

    part: Expression

    @property
    def text(self) -> str:
        return f"!{self.part.text}"

    def bound(self, source: str) -> Expression:
        return Not(self.part.bound(source))

    def matches(self, keys: frozenset[str]) -> bool:
        return EXISTING in keys and not self.part.matches(keys)

    def anchors(self) -> frozenset[str]:
        return frozenset((EXISTING,))

    def bits(self, world: World) -> int:
        return world.matching((EXISTING,)) & ~self.part.bits(world)

    def atoms(self) -> Iterator[Is | OfCaller]:
        yield from self.part.atoms()


Expression = Is | OfCaller | Either | Both | Not

NOTHING = Either(())
"""What matches nothing."""

_BROAD = frozenset({"*", "@anyvm", EXISTING})


def _breadth(anchors: frozenset[str]) -> tuple[bool, int]:
    return bool(anchors & _BROAD), len(anchors)


def alternatives(expression: Expression) -> Iterator[Expression]:
    """The parts of which one is all that it takes."""
    if isinstance(expression, Either):
        for part in expression.parts:
            yield from alternatives(part)
    else:
        yield expression


def plain_keys(expression: Expression) -> frozenset[str] | None:
    """The keys of which one is all that it takes; ``None`` where it takes more than that."""
    parts = list(alternatives(expression))
    keys = frozenset(part.key for part in parts if isinstance(part, Is))
    return keys if all(isinstance(part, Is) for part in parts) else None
