"""``lint``: every error of a file in its line, and of the dialect what is hardly meant."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from policy_engine import CONFIGURED, LEGACY, RUNTIME, Catalogue, Finding, lint
from policy_engine.errors import KINDS
from tests.policy_engine.catalogue import carried_out
from tests.policy_engine.test_corpus import found

DIALECT = "!dialect delegation-1\n"


def findings(text: str | bytes, *, legacy: bool = False) -> list[Finding]:
    return lint(text if isinstance(text, bytes) else text.encode(), carried_out, legacy=legacy)


def errors(text: str | bytes, *, legacy: bool = False) -> list[tuple[int, str | None]]:
    found = findings(text, legacy=legacy)
    assert {finding.severity for finding in found} <= {"error"}
    return [(finding.line, finding.kind) for finding in found]


def test_every_line_is_told_of_in_order() -> None:
    text = "x * * * alow\n# fine\n!inclode\nx * * * deny\r\nx\ry * @bad * deny\n\n!include ../out\n!include\n"
    assert errors(text) == [
        (1, "action-unknown"),
        (3, "directive-unknown"),
        (5, "field-count"),
        (6, "token"),
        (8, "include-path"),
        (9, "directive-params"),
    ]


def test_a_finding_has_its_column_and_its_line() -> None:
    (found,) = findings("  x * * * alow\t\n")
    message = "column 11: expected allow, ask or deny, found 'alow'"
    assert found == Finding(1, "error", message, "action-unknown", 11, "x * * * alow")


@pytest.mark.parametrize(
    ("line", "legacy", "kind"),
    [
        pytest.param("!include user", False, None, id="beside"),
        pytest.param("!include include/user", False, None, id="in-include"),
        pytest.param("!include-service a * include/user", False, None, id="for-a-service"),
        pytest.param("!include /etc/qubes/policy.d/user", False, "include-path", id="absolute"),
        pytest.param("!include include/more/user", False, "include-path", id="deeper"),
        pytest.param("!include other/user", False, "include-path", id="another-folder"),
        pytest.param("!include ..", False, "include-path", id="the-folder-above"),
        pytest.param("!include include/..", False, "include-path", id="the-folder-itself"),
        pytest.param("!include-service a * ./user", False, "include-path", id="service-elsewhere"),
        pytest.param("!include-service a! * ./user", False, "service-chars", id="service-before-its-path"),
        pytest.param("!include-dir /anywhere", False, None, id="a-directory-is-not-judged"),
        pytest.param("!include-dir", False, "directive-params", id="a-directory-has-a-word"),
        pytest.param("!compat-4.0", False, None, id="compat"),
        pytest.param("!compat-4.0 x", False, "directive-params", id="compat-has-no-word"),
        pytest.param("$anyvm dom0 allow,user=root", True, None, id="old-syntax"),
        pytest.param("$anyvm dom0 alow", True, "action-unknown", id="old-syntax-error"),
        pytest.param("$include:include/user", True, None, id="old-include"),
        pytest.param("$include:/etc/user", True, "include-path", id="old-include-elsewhere"),
        pytest.param("!include-dir x", True, "directive-unknown", id="no-such-in-the-old"),
        pytest.param("!dialect delegation-1", True, "directive-unknown", id="no-dialect-in-the-old"),
    ],
)
def test_the_line_is(line: str, legacy: bool, kind: str | None) -> None:
    assert errors(line, legacy=legacy) == ([] if kind is None else [(1, kind)])


@pytest.mark.parametrize(
    ("content", "want"),
    [
        pytest.param(b"x\n\xff\n", [(0, "encoding")], id="no-text"),
        pytest.param(b"#" * (4 << 20) + b"\n", [(0, "io")], id="too-long"),
        pytest.param(b"", [], id="empty"),
    ],
)
def test_of_the_file_as_a_whole(content: bytes, want: list[tuple[int, str]]) -> None:
    assert errors(content) == want


def no_catalogue() -> Catalogue:
    raise AssertionError("a file of the stock language needs no catalogue")


def test_the_stock_language_has_no_warnings_and_no_catalogue() -> None:
    assert lint(b"x * * * deny\nx * * * deny\n!include include/a\n", no_catalogue) == []


def told(text: str) -> list[str]:
    """The warnings as ``LINE: MESSAGE``, lines counted from the first after ``!dialect``."""
    found = findings(DIALECT + text)
    assert {finding.severity for finding in found} <= {"warning"}
    return [f"{finding.line - 1}: {finding.message}" for finding in found]


def test_the_dialect_is_checked_in_its_language() -> None:
    assert errors(f"{DIALECT}admin.vm.Start * a b,,c allow\n!include-service a * b\nx|y * * * deny\n") == [
        (2, "token"),
        (3, "directive-unknown"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("!define @a (x)", "1: '@a' is defined and never used", id="unused"),
        pytest.param("x * a b allow\n!define @a (x)", "2: '@a' is defined and never used", id="unused-later"),
        pytest.param("x * 1a b allow", "1: '1a' matches nothing: no qube can be called that", id="name"),
        pytest.param(f"x * a {'b' * 32} allow", "no qube can be called that", id="long-name"),
        pytest.param("x * none b allow", "no qube can be called that", id="reserved-name"),
        pytest.param("x * a-dm b allow", "no qube can be called that", id="stub-domain"),
        pytest.param("x * uuid:5 b allow", "no uuid is written like that", id="uuid"),
        pytest.param("x * @tag:a.b b allow", "a tag has letters", id="tag"),
        pytest.param("x * @type:QubesVM b allow", "the classes are AdminVM, AppVM", id="class"),
        pytest.param("x * @label:a:b b allow", "no label can be called that", id="label"),
        pytest.param("x * @template:1 b allow", "no qube can be called that", id="template"),
        pytest.param("x * a @dispvm:1 allow", "no qube can be called that", id="disposable"),
        pytest.param("x * a @dispvm:@tag:a.b allow", "a tag has letters", id="disposable-tag"),
        pytest.param("x * !1a b allow", "1: '1a' matches nothing", id="in-a-not"),
        pytest.param("x * @dispvm:a b allow", "a source is never a disposable to be", id="source"),
        pytest.param("x * a,b c allow", "nothing is both 'a' and 'b'", id="two-names"),
        pytest.param("x * dom0,b c allow", "nothing is both '@adminvm' and 'b'", id="dom0-and-a-name"),
        pytest.param("x * @type:AppVM,@tag:t,@type:DispVM c allow", "nothing is both", id="two-classes"),
        pytest.param("x * c @adminvm,@anyvm allow", "'@anyvm' is never dom0", id="dom0-of-any"),
        pytest.param("x * c @default,!a allow", "'!' leaves qubes that exist", id="default-and-not"),
        pytest.param("x * a,!a c allow", "'!a' takes away all that the rest leaves", id="taken-away"),
        pytest.param("x * a !* allow", "'!*' matches nothing: it takes away all there is", id="not-any"),
        pytest.param("x * a @tag:{source}.x allow", "a tag has letters", id="tag-of-caller"),
        pytest.param("x * a @type:{source} allow", "the classes are", id="class-of-caller"),
        pytest.param("x * ann {source}n allow", "'{source}n' matches nothing for 'ann'", id="caller"),
        pytest.param("x * ann|nan @tag:{source}na allow", "for 'ann' or 'nan'", id="every-caller"),
        pytest.param("x * a.b @tag:by-{source} allow", "'@tag:by-{source}' matches nothing", id="dotted"),
        pytest.param("admin.vm.Strat * a b allow", "called 'admin.vm.Strat'", id="no-such-call"),
        pytest.param("admin.vn.* * a b allow", "begins with 'admin.vn.'", id="no-such-calls"),
        pytest.param("admin.vm.Start a b c allow", "name no qube in theirs", id="argument-of-no-qube"),
        pytest.param(
            "admin.vm.Create.AppVM @dispvm:x a dom0 allow", "an argument is never", id="argument-disposable"
        ),
        pytest.param(
            "admin.vm.property.Set +netvm a b allow value=(1a)", "'1a' matches nothing", id="value-qube"
        ),
        pytest.param(
            "admin.vm.Create.AppVM * ann dom0 allow value=(name={source}n_* label=red)",
            "value '{source}n_' is no text for 'ann'",
            id="value-text",
        ),
        pytest.param("!limit 1a qubes=1", "1: '1a' matches nothing", id="limit"),
        pytest.param("x * 1a b !include include/f", "1: '1a' matches nothing", id="frame"),
        pytest.param("x * a b deny\nx * a b allow", "2: never reached: line 2 matches", id="never-reached"),
        pytest.param("s.*|x * * * deny\ns.A|x +a a|b c allow", "2: never reached: line 2", id="wider"),
        pytest.param(
            "x * a b deny\nx * a b !include include/f", "2: never reached", id="frame-never-reached"
        ),
    ],
)
def test_doubtful(text: str, message: str) -> None:
    (line,) = told(text)
    assert message in line


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("!define @a (x)\n!define @b (@a)\ny * @b @b allow", id="used"),
        pytest.param("x * @tag:t,@tag:u,a @tag:t,!@tag:u allow", id="several-tags"),
        pytest.param("x * ann|art {source}n allow", id="one-caller-can"),
        pytest.param("x * @tag:t {source}n allow", id="some-caller-can"),
        pytest.param("x * a|@anyvm {source}a allow", id="other-callers"),
        pytest.param("x * dom0 @tag:{source} allow", id="dom0"),
        pytest.param("x * @type:AdminVM,@tag:t,!@label:red|a *,@adminvm allow", id="can-be-both"),
        pytest.param("x * a,uuid:00000000-0000-4000-8000-000000000000 @dispvm:a-x allow", id="by-uuid"),
        pytest.param("@read|@write:local|admin.vm.* * a @default|@dispvm allow", id="calls"),
        pytest.param("admin.vm.Create.AppVM|x !@tag:t a b allow", id="one-call-names-a-qube"),
        pytest.param("x * a b !include include/f\nx * a b allow", id="a-frame-lets-pass"),
        pytest.param("x +a a b deny\nx * a b allow\n", id="argument-wider"),
        pytest.param("x * a|b c deny\nx * a|b|d c allow\n", id="source-wider"),
        pytest.param("* * a b deny\nadmin.* * a b allow\n", id="globs-leave-the-api-out"),
        pytest.param("x * @anyvm b deny\nx * @tag:t b allow\n", id="dom0-may-have-a-tag"),
    ],
)
def test_nothing_to_doubt(text: str) -> None:
    assert told(text) == []


def test_what_a_name_stands_for_is_told_of_where_it_is_defined() -> None:
    text = "!define @a (@tag:a.b)\nx * @a b allow\ny * b @a allow\nz * @tag:c.d b allow\n"
    assert [line.partition(" matches")[0] for line in told(text)] == ["1: '@tag:a.b'", "4: '@tag:c.d'"]


def test_a_long_file_is_a_matter_of_seconds() -> None:
    lines = [f"admin.vm.Start * op{number} @tag:t,!a{number} allow\n" for number in range(4_000)]
    begun = time.monotonic()
    assert told("".join(lines)) == []
    assert time.monotonic() - begun < 10


def cases() -> Iterator[dict[str, Any]]:
    with gzip.open(found("parse.jsonl.gz"), "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def text_of(case: dict[str, Any], path: str) -> str | None:
    content = case["files"].get(path)
    return content if isinstance(content, str) else None


def first_error(text: str, legacy: bool) -> tuple[int, str | None] | None:
    # Only lint minds where an included file lies.
    return next((error for error in errors(text, legacy=legacy) if error[1] != "include-path"), None)


def syntaxes_of(path: str) -> list[bool]:
    """Whether a file may be in the old syntax: only that, only today's, or either, as it was included."""
    folder, _, name = path.rpartition("/")
    if folder in (RUNTIME, CONFIGURED) and name.endswith(".policy"):
        return [False]
    return [True] if folder == LEGACY else [False, True]


def test_the_first_error_of_each_damaged_file_of_the_corpus_is_found() -> None:
    kinds = Counter[str]()
    for case in cases():
        wanted = case["expect"]
        text = text_of(case, wanted.get("file", ""))
        if wanted["ok"] or text is None or wanted["kind"] in ("not-a-file", "not-a-directory"):
            continue
        syntaxes = syntaxes_of(wanted["file"])
        assert (wanted["line"], wanted["kind"]) in [first_error(text, legacy) for legacy in syntaxes], case
        kinds[wanted["kind"]] += 1
    stock = {"field-count", "service-chars", "argument-chars", "argument-plus", "wildcard-argument", "token"}
    stock |= {"action-unknown", "param-syntax", "param-duplicate", "param-bool", "param-unknown"}
    stock |= {"default-needs-target", "directive-params", "directive-unknown"}
    assert kinds.keys() == stock
    assert stock < KINDS


def test_no_error_is_found_in_what_the_original_loads() -> None:
    checked = 0
    for case in cases():
        if not case["expect"]["ok"]:
            continue
        for path in {rule[6] for rule in case["expect"]["rules"]}:
            text = text_of(case, path)
            if text is not None:
                assert None in [first_error(text, legacy) for legacy in syntaxes_of(path)], case["id"]
                checked += 1
    assert checked > 500
