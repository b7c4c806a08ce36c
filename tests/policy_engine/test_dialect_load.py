"""Which files are in the dialect, and how they lie beside those of the stock language."""

from __future__ import annotations

import pytest

from policy_engine import (
    CONFIGURED,
    LEGACY,
    RUNTIME,
    Loader,
    MemorySource,
    PolicyError,
    QubeFacts,
    Request,
    World,
    decide,
    load,
)
from tests.policy_engine.catalogue import carried_out
from tests.policy_engine.delegated import DIALECT, loader
from tests.policy_engine.strategies import kind

WORLD = World.of([QubeFacts("a", "a-id", "AppVM"), QubeFacts("b", "b-id", "AppVM")])


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("!dialect delegation-1\n", id="plain"),
        pytest.param("\n \t\n# why\n   # and how\n!dialect delegation-1\n", id="after-comments"),
        pytest.param("  !dialect \t delegation-1  \n", id="blanks"),
        pytest.param("# x\r\n!dialect delegation-1\r\n", id="crlf"),
        pytest.param("# x\r!dialect delegation-1\r", id="cr"),
    ],
)
def test_the_first_line_says_that_a_file_is_in_the_dialect(first: str) -> None:
    (rule,) = loader({"1.policy": f"{first}s.* * a|b * deny\n"}).load().rules
    assert (
        rule.source if False else rule.line == first.count("\n") + first.replace("\r\n", "").count("\r") + 1
    )


@pytest.mark.parametrize(
    ("text", "error", "line", "column"),
    [
        pytest.param("!dialect delegation-2\n", "dialect", 1, 1, id="version"),
        pytest.param("\n  !dialect\n", "dialect", 2, 3, id="no-name"),
        pytest.param("!dialect delegation-1 x\n", "dialect", 1, 1, id="more-words"),
        pytest.param(f"s * * * deny\n{DIALECT}", "directive-unknown", 2, 1, id="after-a-rule"),
        pytest.param(f"!include x\n{DIALECT}", "directive-unknown", 2, 1, id="after-a-directive"),
        pytest.param(f"\ufeff{DIALECT}", "field-count", 1, 23, id="byte-order-mark"),
        pytest.param("!dialect=delegation-1\n", "directive-unknown", 1, 1, id="other-word"),
        pytest.param("!Dialect delegation-1\n", "directive-unknown", 1, 1, id="capital"),
        pytest.param(f"\xa0{DIALECT}", "directive-unknown", 1, 2, id="blank-that-is-none-of-ascii"),
    ],
)
def test_any_other_first_line_is_refused(text: str, error: str, line: int, column: int) -> None:
    with pytest.raises(PolicyError) as caught:
        loader({"1.policy": text, "x": "s * * * deny\n"}).load()
    assert (caught.value.kind, caught.value.line, caught.value.column) == (error, line, column)


def test_a_reader_of_the_stock_language_alone_refuses_the_file() -> None:
    files = {f"{CONFIGURED}/1.policy": f"{DIALECT}s * * * deny\n".encode(), f"{CONFIGURED}/2.policy": b"s|\n"}
    with pytest.raises(PolicyError) as caught:
        load(MemorySource(files, [RUNTIME]))
    assert (caught.value.kind, caught.value.file) == ("dialect", f"{CONFIGURED}/1.policy")


def test_all_that_is_wrong_is_told_without_the_dialect_too() -> None:
    files = {f"{CONFIGURED}/1.policy": DIALECT.encode(), f"{CONFIGURED}/2.policy": b"s|\n"}
    found = Loader(MemorySource(files, [RUNTIME])).check()
    assert [error.kind for error in found] == ["dialect", "field-count"]


@pytest.mark.parametrize("directive", ["!include-service s * include/x", "!compat-4.0"])
def test_old_syntax_has_no_dialect(directive: str) -> None:
    contents = {
        f"{CONFIGURED}/1.policy": f"{directive}\n",
        f"{CONFIGURED}/include/x": f"{DIALECT}* * deny\n",
        f"{LEGACY}/s": f"{DIALECT}* * deny\n",
    }
    source = MemorySource({path: text.encode() for path, text in contents.items()}, [RUNTIME])
    with pytest.raises(PolicyError) as caught:
        load(source, catalogue=carried_out)
    assert (caught.value.kind, caught.value.line) == ("directive-unknown", 1)


def test_each_file_is_read_in_its_own_language_in_one_order() -> None:
    files = {
        "1.policy": f"{DIALECT}!include include/stock\ns.B|s.C * * * deny notify=no\n!include-dir include\n",
        "2.policy": "!include include/dialect\n* * * * allow\n",
        "include/stock": "s.A * * * deny\n",
        "include/9.policy": f"{DIALECT}s.D|s.E * * * deny\n",
        "include/dialect": f"{DIALECT}s.F|s.G * * * deny\n",
    }
    policy = loader(files).load()
    places = [(rule.file.removeprefix(f"{CONFIGURED}/"), rule.line) for rule in policy.rules]
    assert places == [
        ("include/stock", 1),
        ("1.policy", 3),
        ("include/9.policy", 2),
        ("include/dialect", 2),
        ("2.policy", 2),
    ]
    denied = {
        service: kind(decide(policy, Request.of(service, "a", "b"), WORLD))
        for service in ("s.A", "s.C", "s.E", "s.G", "s.H")
    }
    assert list(denied.values()) == ["rule", "rule", "rule", "rule", "allowed"]


def test_a_limit_stands_in_a_file_of_a_policy_directory() -> None:
    files = {"1.policy": "!include include/x\n", "include/x": f"{DIALECT}!limit a qubes=1\n"}
    with pytest.raises(PolicyError) as caught:
        loader(files).load()
    assert (caught.value.kind, caught.value.line) == ("limit", 2)
