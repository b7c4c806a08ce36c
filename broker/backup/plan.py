"""What a restore will do, found out before it does anything (``spec/backup.md`` 4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from broker.backup.archive import Saved
from qubesd.errors import QubesError
from qubesd.model.state import Klass

_LONGEST = 29
"""Characters of a name that a suffix may follow."""


class Step(NamedTuple):
    """A qube to be made.

    Attributes:
        name: its name here.
        template: that of its template here; empty for a qube that has none.
    """

    saved: Saved
    name: str
    template: str


class Plan(NamedTuple):
    """The qubes in the order in which they are made, and what a name of the archive is here."""

    steps: list[Step]
    names: Mapping[str, str]


def chosen(inside: Collection[str], named: Collection[str], excluded: Collection[str]) -> list[str]:
    """Which of the names in the archive are to be restored: those, or all where none is named, but for the
    excluded ones.

    Raises:
        QubesError: one of them is not in the archive, or nothing is left.
    """
    for name in (*named, *excluded):
        if name not in inside:
            raise QubesError(f"no qube {name!r} is in the archive; see qube-backup list")
    found = [name for name in inside if name in (named or inside) and name not in excluded]
    if not found:
        raise QubesError("there is nothing to restore; see qube-backup list")
    return found


def plan(saved: Collection[Saved], there: Mapping[str, str]) -> Plan:
    """How to restore these qubes into a system with those that are there, with the class of each.

    Raises:
        QubesError: the template of one is neither there nor restored.
    """
    taken = set(there)
    names: dict[str, str] = {}
    for one in saved:
        names[one.qube.name] = _free(one.qube.name, taken)
        taken.add(names[one.qube.name])
    steps = [Step(one, names[one.qube.name], _template(one, names, there)) for one in _ordered(saved)]
    return Plan(steps, names)


def _free(name: str, taken: Collection[str]) -> str:
    """The name, or where it is taken the first one with a number that is not."""
    if name not in taken:
        return name
    for number in range(1, 100):
        numbered = f"{name[: _LONGEST - (number > 9)]}-{number}"
        if numbered not in taken:
            return numbered
    raise QubesError(f"there are too many qubes named like {name!r}; remove some")


def _template(one: Saved, names: Mapping[str, str], there: Mapping[str, str]) -> str:
    template = one.qube.properties.get("template")
    if template is None or one.qube.klass not in (Klass.APP, Klass.DISPOSABLE):
        return ""
    found = names.get(str(template), str(template))
    if found not in names.values() and found not in there:
        raise QubesError(
            f"the template {str(template)!r} of qube {one.qube.name!r} is not there: "
            "restore it too, or make a template of that name"
        )
    return found


def _ordered(saved: Iterable[Saved]) -> list[Saved]:
    """Templates first, then what disposables are made of, then the rest, disposables last."""

    def rank(one: Saved) -> int:
        if one.qube.klass is Klass.TEMPLATE:
            return 0
        if one.qube.klass is Klass.DISPOSABLE:
            return 3
        return 1 if one.qube.properties.get("template_for_dispvms") is True else 2

    return sorted(saved, key=rank)
