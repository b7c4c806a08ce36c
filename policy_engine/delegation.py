"""Rules of the delegation dialect as values: four fields that say more than stock's, and what is limited.

Matching is by text for services and arguments, by keys for qubes (``expression.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policy_engine.catalogue import GUARDED
from policy_engine.expression import Expression, Is
from policy_engine.model import Allow, Ask, Deny, Inclusion, Rule
from policy_engine.values import Values


@dataclass(frozen=True, slots=True)
class Services:
    """The service field.

    Attributes:
        names: the services that it names, those of its sets included.
        globs: what stands before the ``*`` of each glob.
    """

    names: frozenset[str]
    globs: tuple[str, ...] = ()

    def covers(self, service: str) -> bool:
        """Services of the Admin API are for globs that speak of them."""
        if service in self.names:
            return True
        if not service.startswith(GUARDED):
            return service.startswith(self.globs)
        return any(glob.startswith(GUARDED) and service.startswith(glob) for glob in self.globs)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The argument field: texts with their ``+``, or the qubes that an argument may name.

    Attributes:
        names: arguments that are named literally.
        globs: what stands before the ``*`` of each glob; ``""`` is ``*``, every argument.
        qubes: ``None`` where the field speaks of texts.
    """

    names: frozenset[str] = frozenset()
    globs: tuple[str, ...] = ()
    qubes: Expression | None = None

    def covers(self, argument: str) -> bool:
        """By text alone: whether it may be this argument, ``qubes`` left aside."""
        return self.qubes is not None or argument in self.names or argument.startswith(self.globs)


@dataclass(frozen=True, slots=True)
class Reach:
    """The four fields of a rule."""

    services: Services
    arguments: Arguments
    source: Expression
    target: Expression

    def expressions(self) -> Iterator[Expression]:
        yield self.source
        yield self.target
        if self.arguments.qubes is not None:
            yield self.arguments.qubes


EVERYTHING = Reach(Services(frozenset(), ("", *GUARDED)), Arguments(globs=("",)), Is("*"), Is("*"))
"""The fields that match every request."""


@dataclass(frozen=True, slots=True)
class DelegationRule:
    """One rule of the dialect as it is in force.

    Attributes:
        text: the rule as it is written, its words parted by single blanks.
        reach: its own four fields.
        value: what the payload must be; ``None`` if anything may be in it.
        remember: seconds for which the answer to an ``ask`` counts; ``None`` for just that call.
        frame: the fields of the rule that includes its file as a frame, which must match as well; ``None``
            where the file is not framed.
        file, line, included_from: as of ``Rule``.
    """

    text: str
    reach: Reach
    action: Allow | Ask | Deny
    file: str
    line: int
    value: Values | None = None
    remember: int | None = None
    frame: Reach | None = None
    included_from: Inclusion | None = None

    def reaches(self) -> tuple[Reach, ...]:
        """All the fields that must match: its own, and those of its frame."""
        return (self.reach,) if self.frame is None else (self.reach, self.frame)

    def covers_service(self, service: str) -> bool:
        return all(reach.services.covers(service) for reach in self.reaches())

    def covers_argument(self, argument: str) -> bool:
        """Whether the argument, with its ``+``, matches as far as its text tells."""
        return all(reach.arguments.covers(argument) for reach in self.reaches())

    def names_literally(self, argument: str) -> bool:
        """Whether it, and the frame around it, has just this argument written down."""
        return all(argument in reach.arguments.names for reach in self.reaches())

    def expressions(self) -> Iterator[Expression]:
        """All that it says of qubes, ``value=`` included."""
        for reach in self.reaches():
            yield from reach.expressions()
        if self.value is not None:
            yield from self.value.expressions()


AnyRule = Rule | DelegationRule
"""A rule of either language."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a caller may have of what it created; ``None`` is no bound.

    Attributes:
        qubes: how many exist.
        running: how many run.
        memory: bytes of those that run.
        storage: bytes of the volumes that are kept.
    """

    qubes: int | None = None
    running: int | None = None
    memory: int | None = None
    storage: int | None = None

    def within(self, other: Allowance) -> Allowance:
        """What both leave."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__slots__)
        least = (min((bound for bound in pair if bound is not None), default=None) for pair in pairs)
        return Allowance(*least)


@dataclass(frozen=True, slots=True)
class Limit:
    """``!limit SOURCE key=value …``: an allowance for each caller that the source matches."""

    source: Expression
    allowance: Allowance
    file: str
    line: int
