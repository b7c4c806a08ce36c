"""docs/calls.md says what the method tables say."""

from __future__ import annotations

import pytest

from qubesd.api.method import (
    Access,
    Command,
    Destination,
    DeviceRows,
    EventRows,
    Guard,
    Method,
    NameRows,
    Need,
    QubeRows,
    Scope,
    Text,
    Unguarded,
    VolumeRows,
)
from qubesd.api.table import INTERNAL, METHODS, MISC
from qubesd.api.values import Kind, Names, Unspoken, Values, alone, one
from qubesd.core.core import Core
from tools.calls_table import DOCUMENT, document, row


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run tools/calls-table"


def test_every_call_has_one_row() -> None:
    calls = ("| `admin", "| `int", "| `qubes")
    rows = [line.split("`")[1] for line in document().splitlines() if line.startswith(calls)]
    assert sorted(rows) == sorted([*METHODS, *INTERNAL, *MISC])


def answer(core: Core, command: Command) -> Text:
    return Text("")


def friends(core: Core, command: Command) -> tuple[str, ...]:
    """The ``friends`` of the qube.

    More is not for the table.
    """
    return ()


def undescribed(core: Core, command: Command) -> tuple[str, ...]:
    return ()


@pytest.mark.parametrize(
    ("guard", "shown"),
    [
        pytest.param(Unguarded("nothing in it"), "none: nothing in it", id="unguarded"),
        pytest.param(QubeRows("a.b"), "always: `a.b` on the qube", id="qubes"),
        pytest.param(NameRows("a.b"), "strict: `a.b` with the name", id="names"),
        pytest.param(
            VolumeRows("a.b", by_qube="c.d"),
            "strict: `a.b` with the pool, and `c.d` on the qube that has the volume",
            id="volumes",
        ),
        pytest.param(DeviceRows("a.b"), "strict: `a.b` with the port, on the backend", id="devices"),
        pytest.param(
            EventRows("a.b"), "always: `a.b` with the event, on the qube that it is about", id="events"
        ),
    ],
)
def test_a_row_says_all_that_the_line_declares(guard: Guard, shown: str) -> None:
    method = Method(
        *("a.Set", answer, Scope.LOCAL, Access.WRITE, guard, Destination.QUBE, Need.REQUIRED, Need.OPTIONAL),
        values=Unspoken("says nothing"),
        touches=friends,
    )
    assert row(method) == (
        "| `a.Set` | local | write | qube | required | optional | none: says nothing "
        f"| the `friends` of the qube |  | {shown} |\n"
    )


def keys(argument: str) -> None:
    """By its argument."""


def mood(argument: str) -> str:
    """The mood of the qube."""
    return "@mood"


def sad(argument: str) -> bool:
    """Sadness."""
    return argument == "sad"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        pytest.param(one(Kind.NUMBER), "number", id="one"),
        pytest.param(Values({"a": Kind.TEXT, "b": Kind.QUBE}, alone), "`a` text, `b` qube", id="keys"),
        pytest.param(Values(keys, alone), "by its argument", id="by-argument"),
    ],
)
def test_a_row_says_what_policies_can_say(values: Values, shown: str) -> None:
    method = Method(
        *("a.Set", answer, Scope.LOCAL, Access.WRITE, Unguarded("x"), Destination.QUBE),
        argument=Need.OPTIONAL,
        names=Names.DEVICE,
        payload=Need.REQUIRED,
        values=values,
        alters=mood,
        reserved=sad,
    )
    assert row(method) == (
        f"| `a.Set` | local | write | qube | optional: a device | required | {shown} "
        "|  | the mood of the qube; dom0's: sadness | none: x |\n"
    )


def test_what_finds_subjects_says_which() -> None:
    method = Method("a.Set", answer, Scope.LOCAL, Access.WRITE, Unguarded("x"), touches=undescribed)
    with pytest.raises(ValueError, match="undescribed"):
        row(method)
