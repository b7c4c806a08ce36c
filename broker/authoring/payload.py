"""A payload as an author types it, for a rule that looks at it."""

from __future__ import annotations

from collections.abc import Sequence

from broker.catalogue import catalogue
from broker.described import ToolError
from policy_engine import Kind, Particulars, Request
from policy_engine.catalogue import SINGLE, Value


def particulars_of(words: Sequence[str], request: Request) -> Particulars:
    """What a call with this payload would be about, as far as its text tells.

    Args:
        words: the value, or ``KEY=VALUE`` for each of several; nothing after the ``=`` is no value.

    Raises:
        ToolError: it is no payload that a rule could look at.
    """
    entry = catalogue(enforced=True).entries.get(request.service)
    kinds = None if entry is None else entry.form(request.argument[1:])
    called = request.service if request.argument == "+" else request.service + request.argument
    if not kinds:
        raise ToolError(f"{called}: no rule can look at its payload")
    if SINGLE in kinds:
        if len(words) != 1:
            raise ToolError(f"{called}: its payload is one value, found {len(words)}")
        return Particulars({SINGLE: _value(words[0], kinds[SINGLE])})
    pairs = [word.partition("=") for word in words]
    wrong = [
        word for word, (key, equals, _) in zip(words, pairs, strict=True) if not equals or key not in kinds
    ]
    if wrong:
        raise ToolError(f"{called}: expected KEY=VALUE with one of {', '.join(kinds)}, found {wrong[0]!r}")
    return Particulars({key: _value(text, kinds[key]) for key, _, text in pairs})


def _value(text: str, kind: Kind) -> Value:
    if not text:
        return None
    if kind not in (Kind.NUMBER, Kind.MEBIBYTES):
        return text
    try:
        return int(text)
    except ValueError:
        unit = " of MiB" if kind is Kind.MEBIBYTES else ""
        raise ToolError(f"expected a whole number{unit}, found {text!r}") from None
