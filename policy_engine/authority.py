"""What rules build on: the tags, names and other facts that confer something on whoever has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policy_engine.delegation import AnyRule, DelegationRule, Limit
from policy_engine.expression import Is, OfCaller
from policy_engine.model import Deny, Rule
from policy_engine.world import World

LABEL = "@label"
TEMPLATE = "@template"
SERVED_BY = "@served-by"
"""What a call may alter besides tags (``Entry.alters``)."""

_TAG = "@tag:"
_CREATOR = ("@tag:created-by-", "@tag:disp-created-by-")


@dataclass(frozen=True)
class Authority:
    """All that the rules of a policy say of qubes, by kind.

    Attributes:
        tokens: tokens and names, as they are written, the base of ``@dispvm:`` and ``@template:`` among them.
        patterns: what stands before and after the caller's name in those that hold it.
    """

    tokens: frozenset[str]
    patterns: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, rules: Iterable[AnyRule], limits: Iterable[Limit]) -> Authority:
        tokens: set[str] = set()
        patterns: set[tuple[str, str]] = set()
        for atom in _atoms(rules, limits):
            if isinstance(atom, OfCaller):
                patterns.update((one, atom.after) for one in _parts(atom.before))
            else:
                tokens.update(_parts(atom.key))
        return cls(frozenset(tokens), frozenset(patterns))

    def confers(self, altered: str) -> bool:
        """Whether a rule's outcome can depend on what a call alters (see ``Entry.alters``)."""
        if altered == SERVED_BY:
            return True
        if not altered.startswith(_TAG):
            return any(token.startswith(f"{altered}:") for token in self._all())
        return altered in self.tokens or any(
            altered.startswith(before) and altered.endswith(after) and len(altered) > len(before) + len(after)
            for before, after in self.patterns
        )

    def refers_to(self, name: str, world: World) -> bool:
        """Whether a rule, or a tag that some qube carries, speaks of a qube by this name."""
        if name in self.tokens:
            return True
        patterns = (*self.patterns, *((before, "") for before in _CREATOR))
        return any(world.matching((f"{before}{name}{after}",)) for before, after in patterns if before)

    def _all(self) -> Iterator[str]:
        yield from self.tokens
        yield from (before for before, _ in self.patterns)


def _atoms(rules: Iterable[AnyRule], limits: Iterable[Limit]) -> Iterator[Is | OfCaller]:
    for rule in rules:
        if isinstance(rule, DelegationRule):
            for expression in rule.expressions():
                yield from expression.atoms()
        else:
            yield from _of_stock(rule)
    for limit in limits:
        yield from limit.source.atoms()


def _of_stock(rule: Rule) -> Iterator[Is]:
    yield Is(rule.source.token)
    yield Is(rule.target.token)
    if not isinstance(rule.action, Deny) and rule.action.target is not None:
        yield Is(rule.action.target.token)


def _parts(token: str) -> Iterator[str]:
    """A token, and what it names in turn: a template, or a tag of templates."""
    yield token
    for prefix in ("@dispvm:", "@template:"):
        if token.startswith(prefix):
            yield token.removeprefix(prefix)
