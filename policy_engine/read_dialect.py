"""Bytes of one file in the delegation dialect → its rules, frames and limits in order, each with its line.

Lines end as in the stock language, and every error names its column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from policy_engine.contract import checked_value
from policy_engine.delegation import DelegationRule, Limit, Reach
from policy_engine.dialect import NAME, Dialect, read_frame
from policy_engine.errors import quoted
from policy_engine.parse import FieldError, Include, IncludeDirectory, read_directive
from policy_engine.read import DirectiveLine, Origin, Refuse, lines_of

T = TypeVar("T")

MAX_FRAMED_ATOMS = 5_000
"""Names and tokens of all expressions of a framed file: who writes it is not to slow down others' calls."""

_FIELDS = 5
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class FrameLine:
    """``!include PATH`` as an action: the fields that frame the rules of the file. ``column`` is its."""

    text: str
    reach: Reach
    path: str
    line: int
    column: int


DialectStep = DelegationRule | Limit | FrameLine | DirectiveLine


def is_dialect(content: bytes) -> bool:
    """Whether the first line that is neither blank nor a comment speaks of a dialect."""
    for line in content.splitlines():
        words = line.split(None, 1)
        if words and not words[0].startswith(b"#"):
            return words[0] == b"!dialect"
    return False


def read_dialect(content: bytes, origin: Origin, dialect: Dialect, refuse: Refuse) -> Iterator[DialectStep]:
    """The steps of a file in order.

    Args:
        dialect: the readers of this file alone.
        refuse: is told of what is wrong.
    """
    begun = False
    for number, line in lines_of(content, origin, refuse):
        text = line.strip()
        if not text or text[0] == "#":
            continue
        column = line.index(text) + 1
        try:
            if not begun:
                begun = True
                _begin(text)
            elif text[0] == "!":
                step = _directive(text, origin, dialect, number, column)
                if step is not None:
                    yield step
            else:
                yield _rule(text, origin, dialect, number, column)
        except FieldError as error:
            refuse(origin.error(error.kind, error.message, number, column + error.offset))
        if origin.frame is not None and dialect.atoms > MAX_FRAMED_ATOMS:
            message = f"a framed file has at most {MAX_FRAMED_ATOMS} names and tokens of qubes"
            refuse(origin.error("frame", message, number, column))
            return


def _begin(text: str) -> None:
    if text.split() != ["!dialect", NAME]:
        raise FieldError("dialect", f"expected !dialect {NAME}, the only one there is, found {quoted(text)}")


def _directive(text: str, origin: Origin, dialect: Dialect, number: int, column: int) -> DialectStep | None:
    name = text.split()[0]
    if name == "!define":
        dialect.define(text, number)
        return None
    if origin.frame is not None:
        raise FieldError("frame", f"a framed file holds rules and !define only, found {quoted(name)}")
    if name == "!limit":
        if origin.included_from is not None:
            raise FieldError(
                "limit", "!limit stands in a file of a policy directory, not in one that is included"
            )
        if not dialect.catalogue.enforced:
            raise FieldError("needs-core", "!limit needs a daemon that carries the calls out")
        source, allowance = dialect.limit(text)
        return Limit(source, allowance, origin.file, number)
    directive = read_directive(" ".join(text.split()), legacy=False)
    if not isinstance(directive, Include | IncludeDirectory):
        known = "!define, !limit, !include, !include-dir"
        raise FieldError("directive-unknown", f"expected {known}, found {quoted(name)}")
    return DirectiveLine(directive, number, column + text.rindex(directive.path))


def _rule(
    text: str, origin: Origin, dialect: Dialect, number: int, column: int
) -> DelegationRule | FrameLine:
    words = [(word.group(), word.start()) for word in _WORD.finditer(text)]
    if len(words) < _FIELDS:
        message = f"expected SERVICES ARGUMENTS SOURCE TARGET ACTION, found only {len(words)} of these words"
        raise FieldError("field-count", message, len(text))
    reach = Reach(
        _field(dialect.services, *words[0]),
        _field(dialect.arguments, *words[1]),
        _field(dialect.source, *words[2]),
        _field(dialect.target, *words[3]),
    )
    start = words[4][1]
    rest = text[start:]
    framed = _field(read_frame, rest, start)
    if framed is not None:
        if origin.frame is not None:
            raise FieldError("frame", "a framed file includes no others", start)
        path, offset = framed
        return FrameLine(" ".join(text.split()), reach, path, number, column + start + offset)
    outcome = _field(dialect.outcome, rest, start)
    if origin.frame is not None and getattr(outcome.action, "user", None) is not None:
        raise FieldError("frame", "a framed rule leaves user= out", start + rest.index("user="))
    try:
        value = checked_value(reach, outcome, dialect)
    except FieldError as error:
        raise FieldError(error.kind, error.message, start + error.offset) from None
    return DelegationRule(
        " ".join(text.split()),
        reach,
        outcome.action,
        origin.file,
        number,
        value,
        outcome.remember,
        origin.frame,
        origin.included_from,
    )


def _field(read: Callable[[str], T], text: str, start: int) -> T:
    try:
        return read(text)
    except FieldError as error:
        raise FieldError(error.kind, error.message, start + error.offset) from None
