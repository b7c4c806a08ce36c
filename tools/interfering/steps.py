"""What a seed comes to: calls of alice, and between them what others do, on both daemons or on one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random

from qubesd.api.method import Access
from qubesd.api.table import METHODS
from tools.interfering.drawing import Mix, fit
from tools.interfering.rules import OPERATOR, OTHER
from tools.interfering.words import BOBS, CONCEALED, SETTLED, Words


class Where(Enum):
    """Which daemons do it."""

    OBSERVED = "both, compared"
    SETTLED = "both"
    CONCEALED = "one"


@dataclass(frozen=True, slots=True)
class Step:
    """One call. Words in braces stand for what each daemon draws (``Side``)."""

    where: Where
    caller: str
    service: str
    argument: str
    target: str
    payload: bytes

    @property
    def concealed(self) -> bool:
        return self.where is Where.CONCEALED

    def __str__(self) -> str:
        words = (self.caller, f"{self.service}+{self.argument}", self.target or "''")
        payload = f" {shlex.quote(repr(self.payload)[2:-1])}" if self.payload else ""
        return f"[{self.where.value}] {' '.join(words)}{payload}"


_CONCEALED_EACH = 1.0
_SETTLED_EACH = 0.15
"""How many of these there are for each call of alice."""

_METHODS = tuple(METHODS.values())
_CHANGES = tuple(
    method
    for method in _METHODS
    if method.access is not Access.READ and not method.name.startswith(("admin.property.", "admin.backup."))
)
"""What others do: not what would change the defaults of all, nor backups, of which there are no profiles."""
_BUSY = (".Start", ".Kill", ".Create.AppVM", ".Remove", ".tag.Set")
_MEMBERS = (
    "admin.vm.property.Set",
    "admin.vm.feature.Set",
    "admin.vm.Pause",
    "admin.vm.Unpause",
    "admin.vm.Kill",
)
ANY = Mix(_METHODS)
CHANGES = Mix(_CHANGES)
BUSY = Mix(method for method in _CHANGES if method.name.endswith(_BUSY))
MEMBERS = Mix(METHODS[name] for name in _MEMBERS)


def steps(seed: int, calls: int, words: Words) -> Iterator[Step]:
    """The steps of so many calls of alice, drawn from her words; every other one takes the methods of the
    table in turn."""
    for number in range(calls):
        random = Random(f"{seed}/{number}")
        for _ in range(int(_CONCEALED_EACH + random.random())):
            yield _concealed(random)
        if random.random() < _SETTLED_EACH:
            yield _settled(random)
        in_turn = _METHODS[number // 2 % len(_METHODS)]
        drawn = ANY.draw(random, words) if number % 2 else fit(random, words, in_turn)
        yield Step(Where.OBSERVED, OPERATOR, *drawn)


def _concealed(random: Random) -> Step:
    """Bob does much of what his role lets him, dom0 everything."""
    if random.random() < 0.4:
        mix = BUSY if random.random() < 0.5 else CHANGES
        return Step(Where.CONCEALED, OTHER, *mix.draw(random, BOBS))
    return Step(Where.CONCEALED, "dom0", *CHANGES.draw(random, CONCEALED))


def _settled(random: Random) -> Step:
    """Bob takes part in the team, and dom0 does what it likes to what alice may see."""
    if random.random() < 0.4:
        return Step(Where.SETTLED, OTHER, *MEMBERS.draw(random, SETTLED))
    if random.random() < 0.01:
        service = random.choice(("admin.vm.tag.Set", "admin.vm.tag.Remove"))
        return Step(Where.SETTLED, "dom0", service, "team", OPERATOR, b"")
    return Step(Where.SETTLED, "dom0", *CHANGES.draw(random, SETTLED))
