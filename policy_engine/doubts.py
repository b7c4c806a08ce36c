"""What in a file of the delegation dialect is no error and yet hardly meant: the warnings of ``lint.py``.

Each doubt is certain: what it says is never matched is matched by no call in any world of qubes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product

from policy_engine.catalogue import Catalogue, Names, guard_of
from policy_engine.cover import covers, covers_qubes
from policy_engine.delegation import DelegationRule, Limit, Reach
from policy_engine.errors import quoted
from policy_engine.expression import (
    HOLE,
    NOTHING,
    Both,
    Either,
    Expression,
    Is,
    Not,
    OfCaller,
    alternatives,
    can_stand_before,
)
from policy_engine.read_dialect import DialectStep, FrameLine
from policy_engine.values import Texts

NAME = re.compile(r"(?!none$|default$|Domain-0$)[A-Za-z][A-Za-z0-9_.-]{0,30}(?<!-dm)")
"""What a qube can be called."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TAG = re.compile(r"[A-Za-z0-9_-]+")
LABEL = re.compile(r"[A-Za-z0-9_.-]+")
CLASSES = ("AdminVM", "AppVM", "DispVM", "RemoteVM", "StandaloneVM", "TemplateVM")

MOST_COMPARED = 1_000
"""Earlier rules about the same qubes that one rule is compared with."""


@dataclass
class Doubts:
    """Collects what is doubtful, line by line.

    Attributes:
        found: line and message, in no order.
    """

    catalogue: Catalogue
    found: list[tuple[int, str]] = field(default_factory=list)
    _told: set[Expression] = field(default_factory=set)
    _earlier: dict[tuple[str, str], list[tuple[Reach, int]]] = field(default_factory=dict)

    def define(self, name: str, expression: Expression, line: int, used: bool) -> None:
        """A name that the file defines. To be told of before the rules, which then need not repeat it."""
        if not used:
            self._add(line, f"{quoted(name)} is defined and never used")
        for part, why in _never(expression):
            self._told.add(part)
            self._add(line, why)

    def step(self, step: DialectStep) -> None:
        """What a line of the file comes to, in their order."""
        match step:
            case DelegationRule():
                self._fields(step.reach, step.line)
                self._reached(step.reach, step.line)
                self._file(step.reach, step.line)
                self._value(step)
            case FrameLine():
                # Where nothing in its file matches, what comes after it has its say.
                self._fields(step.reach, step.line)
                self._reached(step.reach, step.line)
            case Limit():
                self._column(step.source, "a source", step.line)

    def _add(self, line: int, message: str) -> None:
        self.found.append((line, message))

    def _fields(self, reach: Reach, line: int) -> None:
        for service in sorted(reach.services.names):
            if guard_of(service) and service not in self.catalogue.entries:
                self._add(line, f"no call of the Admin API is called {quoted(service)}")
        for glob in reach.services.globs:
            if guard_of(glob) and not any(name.startswith(glob) for name in self.catalogue.entries):
                self._add(line, f"no call of the Admin API begins with {quoted(glob)}")
        self._column(reach.source, "a source", line)
        self._column(reach.target, "a target", line)
        self._holes(reach.source, reach.target, line)
        if reach.arguments.qubes is not None:
            self._arguments(reach, reach.arguments.qubes, line)

    def _arguments(self, reach: Reach, qubes: Expression, line: int) -> None:
        entries = self.catalogue.entries.items()
        if all(entry.names is Names.NOTHING for name, entry in entries if reach.services.covers(name)):
            message = f"no argument is {quoted(qubes.text)}: the calls of this rule name no qube in theirs"
            self._add(line, message)
        self._column(qubes, "an argument", line)
        self._holes(reach.source, qubes, line)

    def _column(self, expression: Expression, what: str, line: int) -> None:
        for part, why in _never(expression):
            if part not in self._told:
                self._add(line, why)
        if what != "a target":
            for atom in expression.atoms():
                if atom.text.startswith("@dispvm"):
                    self._add(
                        line, f"{quoted(atom.text)} matches nothing: {what} is never a disposable to be"
                    )

    def _holes(self, source: Expression, expression: Expression, line: int) -> None:
        """Where the rule names its callers, none of whom can stand where ``{source}`` does."""
        callers = _callers(source)
        for atom in expression.atoms():
            if isinstance(atom, OfCaller) and callers and not any(_never(atom)):
                filled = [atom.bound(caller) for caller in callers]
                if all(one == NOTHING or any(_never(one)) for one in filled):
                    self._add(line, f"{quoted(atom.text)} matches nothing for {_any_of(callers)}")

    def _value(self, rule: DelegationRule) -> None:
        callers = _callers(rule.reach.source)
        for _, matcher in () if rule.value is None else rule.value.keys:
            if not isinstance(matcher, Texts) or not callers:
                continue
            for pattern in matcher.patterns:
                _, hole, after = pattern.text.partition(HOLE)
                if hole and not any(can_stand_before(caller, after) for caller in callers):
                    self._add(rule.line, f"value {quoted(pattern.text)} is no text for {_any_of(callers)}")
        if rule.value is not None:
            for expression in rule.value.expressions():
                self._column(expression, "a value", rule.line)
                self._holes(rule.reach.source, expression, rule.line)

    def _reached(self, reach: Reach, line: int) -> None:
        keys = product(_sought(reach.source), _sought(reach.target))
        earlier = (one for key in keys for one in self._earlier.get(key, ()))
        covering = min((place for wide, place in earlier if covers(wide, reach)), default=None)
        if covering is not None:
            self._add(line, f"never reached: line {covering} matches whatever this one does")

    def _file(self, reach: Reach, line: int) -> None:
        for key in product(_filed(reach.source), _filed(reach.target)):
            rules = self._earlier.setdefault(key, [])
            if len(rules) < MOST_COMPARED:
                rules.append((reach, line))


def _filed(expression: Expression) -> Iterable[str]:
    """Under what an expression is filed, to be found by ``_sought`` for one that it covers."""
    keys = {key for part in alternatives(expression) for key in _parts(part)}
    return keys if len(keys) <= _MANY else (_LONG,)


def _sought(expression: Expression) -> Iterable[str]:
    return (*_parts(next(alternatives(expression))), "*", "@anyvm", _NOT, _LONG)


def _parts(part: Expression) -> set[str]:
    """Texts of which one that covers the part has one, unless it is among the few that cover much."""
    parts = part.parts if isinstance(part, Both) else (part,)
    return {_NOT if isinstance(one, Not) else one.text for one in parts}


_MANY = 8
_LONG = ""
_NOT = "!"


def _callers(source: Expression) -> list[str]:
    """The names of the only callers that a source matches; none where it is not that plain."""
    parts = list(alternatives(source))
    names = [part.key for part in parts if isinstance(part, Is) and NAME.fullmatch(part.key)]
    return names if len(names) == len(parts) else []


def _any_of(callers: list[str]) -> str:
    return " or ".join(map(quoted, callers))


def _never(expression: Expression) -> Iterator[tuple[Expression, str]]:
    """The parts of an expression that match nothing, and why."""
    match expression:
        case Is(key):
            why = _impossible(key)
        case OfCaller(before, after):
            # A name of one letter stands for those that can stand there, if any can.
            letter = next((letter for letter in "abc" if can_stand_before(letter, after)), "a")
            why = _impossible(f"{before}{letter}{after}")
        case Either(parts):
            for part in parts:
                yield from _never(part)
            return
        case Both(parts):
            for part in parts:
                yield from _never(part)
            why = _contradiction(parts)
        case Not(part):
            yield from _never(part)
            why = "it takes away all there is" if covers_qubes(part, Is("@anyvm")) else ""
    if why:
        yield expression, f"{quoted(expression.text)} matches nothing: {why}"


def _impossible(key: str) -> str:
    """Why nothing has this key; empty where something may."""
    for prefix, pattern, expected in _FORMS:
        if key.startswith(prefix):
            return "" if pattern.fullmatch(key.removeprefix(prefix)) else expected
    return ""


_NO_NAME = "no qube can be called that"
_NO_TAG = "a tag has letters, digits, '_' and '-' only"
_NO_UUID = "no uuid is written like that"
_FORMS = (
    ("@tag:", TAG, _NO_TAG),
    ("@type:", re.compile("|".join(CLASSES)), f"the classes are {', '.join(CLASSES)}"),
    ("@label:", LABEL, "no label can be called that"),
    ("@template:", NAME, _NO_NAME),
    ("@dispvm:@tag:", TAG, _NO_TAG),
    ("@dispvm:uuid:", UUID, _NO_UUID),
    ("@dispvm:", NAME, _NO_NAME),
    ("uuid:", UUID, _NO_UUID),
    ("@", re.compile(".*"), ""),
    ("*", re.compile(".*"), ""),
    ("", NAME, _NO_NAME),
)
"""By the beginning of a key, in this order: what can follow, and what to say where it does not."""

_ONE_EACH = ("@type:", "@label:", "@template:")
"""Of what a qube has just one."""


def _contradiction(parts: Iterable[Expression]) -> str:
    """Why parts that may match something each never match the same; empty where they may."""
    parts = list(parts)
    for part in parts:
        rest = [other for other in parts if other is not part]
        if isinstance(part, Not) and any(covers_qubes(part.part, other) for other in rest):
            return f"{quoted(part.text)} takes away all that the rest leaves"
    keys = [part.key for part in parts if isinstance(part, Is)]
    kinds: dict[str, str] = {}
    for key in keys:
        kind = _kind(key)
        if kind and kinds.setdefault(kind, key) != key:
            return f"nothing is both {quoted(kinds[kind])} and {quoted(key)}"
    if "@adminvm" in keys and "@anyvm" in keys:
        return "'@anyvm' is never dom0"
    odd = next((key for key in keys if key in ("@adminvm", "@default") or key.startswith("@dispvm")), None)
    if odd is not None and any(isinstance(part, Not) for part in parts):
        return f"'!' leaves qubes that exist, and {quoted(odd)} is none but by its name"
    return ""


def _kind(key: str) -> str:
    """What nothing has two of."""
    if NAME.fullmatch(key) or key in ("@adminvm", "@default", "@dispvm"):
        return "name"
    return next((prefix for prefix in _ONE_EACH if key.startswith(prefix)), "")
