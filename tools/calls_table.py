"""docs/calls.md, made from the method tables: each call's contract and what is hidden of its answer.

``tools/calls-table`` writes it anew; a test fails where it is not what the tables say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from broker.editing.table import METHODS as POLICY_METHODS
from qubesd.api.method import (
    Counted,
    DeviceRows,
    EventRows,
    Guard,
    HeldAlong,
    Method,
    NameRows,
    Need,
    QubeRows,
    Unguarded,
    VolumeRows,
    alters_nothing,
    never,
)
from qubesd.api.table import INTERNAL, METHODS, MISC
from qubesd.api.values import Names, Unspoken, Values

T = TypeVar("T")

DOCUMENT = Path(__file__).parents[1] / "docs" / "calls.md"

INTRODUCTION = """\
# The calls

Made from the method tables in `qubesd/api/` and `broker/editing/table.py` by `tools/calls-table`; a test
holds it to them. What each call does and answers is in its handler there. A service that is not here does
not exist, except `internal.PolicyStatus`, which `qubes-policy status` asks.

- *scope*: whether the call is about one qube (`local`) or about the system (`global`).
- *access*: `read`, `write` or `execute`. Scope and access say which include file of the policy grants the
  call: `admin-SCOPE-ro` where it reads, else `admin-SCOPE-rwx`. No such file grants `policy.*`: whoever edits
  what is not framed may do anything.
- *destination*: the qubes that it may be called on: `dom0`, a `qube` that is not dom0, `any`.
- *argument*, *payload*: `required` or `optional`; empty where there must be none. What breaks this is a
  `ProtocolError`. With the argument: what it names, if a rule can mean it by a qube expression. Of a
  device that is the qube which exposes it.
- *values*: what `value=` of a rule can say of the payload: the types of its keys, or of the one value, or
  why nothing.
- *authority*: what the call changes that rules build on, and of which arguments it is for dom0 alone, both
  where a rule of the delegation dialect decides.
- *subjects*: the qubes that it is about besides its destination. One that is hidden from the caller is to
  it as one that is not there.
- *guard*: the read that the caller must be allowed for each row or event of the answer, or why there is
  none to judge. "Always" is as in stock Qubes, "strict" with `visibility = "strict"` only.

Dom0's own calls are not judged, and nothing is hidden from it.
"""

HEAD = """\
| call | scope | access | destination | argument | payload | values | subjects | authority | guard |
|---|---|---|---|---|---|---|---|---|---|
"""


def document() -> str:
    """The whole text of docs/calls.md."""
    sections = (_section(_subject(module), methods) for module, methods in groupby(METHODS.values(), _module))
    policy = _section("The files of the policy", POLICY_METHODS.values())
    internal = _section("On the internal socket only", INTERNAL.values())
    misc = _section("On the misc socket only", MISC.values())
    return INTRODUCTION + "".join(sections) + policy + internal + misc


def _section(title: str, methods: Iterable[Method]) -> str:
    return f"\n## {title}\n\n{HEAD}{''.join(map(row, methods))}"


def _module(method: Method) -> str:
    """The module that has the method's line."""
    return _plain(method.handler).__module__


def _subject(module: str) -> str:
    """What a module says that it is about, without the section of the specification."""
    first = _first_line(import_module(module))
    return first.partition(" (")[0].rstrip(".")


def _plain(function: Callable[..., T] | partial[T]) -> Callable[..., T]:
    return function.func if isinstance(function, partial) else function


def _first_line(described: object) -> str:
    first = (inspect.getdoc(described) or "").partition("\n")[0]
    if not first:
        raise ValueError(f"{described!r} does not say what it is")
    return first.replace("``", "`")


def row(method: Method) -> str:
    """The line of one call."""
    cells = (
        f"`{method.name}`",
        method.scope.value,
        method.access.value,
        method.destination.value,
        _argument(method),
        _need(method.payload),
        _values(method.values),
        "" if method.touches is None else _said(method.touches),
        _authority(method),
        _guard(method.guard),
    )
    return f"| {' | '.join(cells)} |\n"


def _argument(method: Method) -> str:
    need = _need(method.argument)
    return need if method.names is Names.NOTHING else f"{need}: a {method.names.value}"


def _values(values: Values | Unspoken | None) -> str:
    match values:
        case None:
            return ""
        case Unspoken(reason):
            return f"none: {reason}"
        case Values(keys):
            if callable(keys):
                return _said(keys)
            return ", ".join(f"{f'`{key}` ' if key else ''}{kind.value}" for key, kind in keys.items())


def _authority(method: Method) -> str:
    altered = "" if method.alters is alters_nothing else _said(method.alters)
    reserved = "" if method.reserved is never else f"dom0's: {_said(method.reserved)}"
    return "; ".join(filter(None, [altered, reserved]))


def _said(function: Callable[..., object] | partial[object]) -> str:
    """What a function of a method's line says of itself, as part of a sentence."""
    first = _first_line(_plain(function))
    return (first[0].lower() + first[1:]).rstrip(".")


def _need(need: Need) -> str:
    return "" if need is Need.FORBIDDEN else need.value


def _guard(guard: Guard) -> str:
    match guard:
        case Unguarded(reason):
            return f"none: {reason}"
        case QubeRows(read):
            judged = f"`{read}` on the qube"
        case NameRows(read):
            judged = f"`{read}` with the name"
        case VolumeRows(read, by_qube):
            judged = f"`{read}` with the pool, and `{by_qube}` on the qube that has the volume"
        case Counted(read):
            judged = f"`{read}` on each qube, also in the sums"
        case HeldAlong(read):
            judged = f"`{read}` with the name, on the qube that has it"
        case DeviceRows(read):
            judged = f"`{read}` with the port, on the backend"
        case EventRows(read):
            judged = f"`{read}` with the event, on the qube that it is about"
    return f"{'always' if guard.always else 'strict'}: {judged}"


def main() -> None:
    DOCUMENT.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
