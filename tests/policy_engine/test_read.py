"""Lines, words, fields and their errors, with the column of each."""

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark import Lark, LarkError

from policy_engine import PolicyError, Rule, format_rule, parse
from policy_engine.errors import KINDS
from policy_engine.model import Allow, Ask, Deny, Named, NoTarget
from policy_engine.parse import Compat, Fields, Include, IncludeDirectory, IncludeService
from policy_engine.read import DirectiveLine, Origin, Step, read
from tests.policy_engine import strategies

MODERN = Origin("30.policy")
LEGACY = Origin("include/old", legacy=("svc", "*"))


def steps(text: str | bytes, origin: Origin = MODERN) -> list[Step]:
    return list(read(text if isinstance(text, bytes) else text.encode(), origin, Fields()))


def rules(text: str, origin: Origin = MODERN) -> list[Rule]:
    (run,) = steps(text, origin)
    assert isinstance(run, list)
    return run


def error(text: str | bytes, origin: Origin = MODERN) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        steps(text, origin)
    return caught.value


@pytest.mark.parametrize(
    ("line", "kind", "column"),
    [
        pytest.param("a * b c", "field-count", 8, id="too-few"),
        pytest.param("  a  ", "field-count", 4, id="one-word"),
        pytest.param("a/b * b c deny", "service-chars", 2, id="service"),
        pytest.param("a+b * b c deny", "service-chars", 2, id="service-plus"),
        pytest.param("s* * b c deny", "service-chars", 2, id="star-inside"),
        pytest.param("\ufeffa * b c deny", "service-chars", 1, id="byte-order-mark"),
        pytest.param("a +x,y b c deny", "argument-chars", 5, id="argument"),
        pytest.param("a x/y b c deny", "argument-chars", 4, id="argument-chars-before-plus"),
        pytest.param("a *x b c deny", "argument-chars", 3, id="argument-star-inside"),
        pytest.param("a  x+y b c deny", "argument-plus", 4, id="argument-plus"),
        pytest.param("* + @x @x nope", "wildcard-argument", 3, id="wildcard-first"),
        pytest.param("a * @default c deny", "token", 5, id="source-default"),
        pytest.param("a * @dispvm c deny", "token", 5, id="source-dispvm"),
        pytest.param("a * @tag: c deny", "token", 10, id="empty-tag"),
        pytest.param("a * @tag:@x c deny", "token", 10, id="tag-of-token"),
        pytest.param("a * b @dispvm:@adminvm deny", "token", 15, id="disposable-of-token"),
        pytest.param("a * b @dispvm:@tag:@x deny", "token", 20, id="disposable-of-tagged-token"),
        pytest.param("a * b @dispvm:@tag: deny", "token", 20, id="disposable-of-no-tag"),
        pytest.param("a * b @anyvmx deny", "token", 7, id="keyword-goes-on"),
        pytest.param("a * b @AnyVM deny", "token", 7, id="case-counts"),
        pytest.param("a * @x @x nope", "token", 5, id="source-before-target"),
        pytest.param("a * b c ALLOW", "action-unknown", 9, id="action-case"),
        pytest.param("a * b c allow,target=dom0", "action-unknown", 9, id="comma-in-new-syntax"),
        pytest.param("a * b c denying x", "action-unknown", 9, id="action-goes-on"),
        pytest.param("a * b c deny # why", "param-syntax", 14, id="comment-after-rule"),
        pytest.param("a * b c deny notify=x  notify", "param-syntax", 24, id="syntax-before-value"),
        pytest.param("a * b c ask user=1 user=2 x", "param-duplicate", 20, id="duplicate-in-turn"),
        pytest.param("a * b c ask x user=1 user=2", "param-syntax", 13, id="syntax-in-turn"),
        pytest.param("a * b c ask a=1 notify=YES", "param-bool", 24, id="bool-before-unknown"),
        pytest.param("a * b c deny autostart=", "param-bool", 24, id="bool-not-taken-by-deny"),
        pytest.param("a * b c deny autostart=no", "param-unknown", 14, id="autostart-of-deny"),
        pytest.param("a * b c allow target=@x rule=1", "param-unknown", 25, id="unknown-before-token"),
        pytest.param("a * b c allow default_target=x", "param-unknown", 15, id="default-target-of-allow"),
        pytest.param("a * b c allow =x", "param-unknown", 15, id="empty-key"),
        pytest.param("a * b c ask default_target=@x target=*", "token", 38, id="target-before-default"),
        pytest.param("a * b c ask target=", "token", 20, id="empty-target"),
        pytest.param("a * b c ask target=@default", "token", 20, id="target-default"),
        pytest.param("a * b c ask target=@dispvm:@tag:t", "token", 28, id="target-tagged-disposable"),
        pytest.param("a * b @default allow user=x", "default-needs-target", 16, id="allow-default"),
        pytest.param("!", "directive-unknown", 1, id="bare-directive"),
        pytest.param(" ! include x", "directive-unknown", 2, id="blank-in-directive"),
        pytest.param("!Include x", "directive-unknown", 1, id="directive-case"),
        pytest.param("!includefoo", "directive-unknown", 1, id="directive-goes-on"),
        pytest.param("!include", "directive-params", 1, id="no-path"),
        pytest.param("!include a b", "directive-params", 1, id="two-paths"),
        pytest.param("!compat-4.0 x", "directive-params", 1, id="compat-word"),
        pytest.param("!include-service a/ x", "directive-params", 1, id="count-before-fields"),
        pytest.param("!include-service a x", "directive-params", 1, id="count-before-plus"),
        pytest.param("!include-service  a/ * x", "service-chars", 20, id="include-service-service"),
        pytest.param("!include-service a x p", "argument-plus", 20, id="include-service-argument"),
        pytest.param("!include-service * +x p", "wildcard-argument", 20, id="include-service-wildcard"),
    ],
)
def test_a_flawed_line_says_what_and_where(line: str, kind: str, column: int) -> None:
    found = error(f"# first\r\n\n{line}\nnot read")
    assert (found.kind, found.file, found.line, found.column) == (kind, "30.policy", 3, column)
    assert str(found) == f"30.policy:3: column {column}: {found.message}"
    assert found.kind in KINDS
    assert re.match(r"expected|parameter|service|allow|ask|deny", found.message)


@pytest.mark.parametrize(
    ("line", "kind", "column"),
    [
        pytest.param("a,b", "field-count", 4, id="comma-parts"),
        pytest.param(" ,, ", "field-count", 1, id="only-commas"),
        pytest.param(",#x y allow z", "param-syntax", 13, id="comment-sign-after-comma"),
        pytest.param(",!include x", "field-count", 12, id="directive-after-comma"),
        pytest.param("!include-dir x", "directive-unknown", 1, id="include-dir"),
        pytest.param("!include-service s * p", "directive-unknown", 1, id="include-service"),
        pytest.param("!compat-4.0", "directive-unknown", 1, id="compat"),
        pytest.param("!include a,b", "directive-params", 1, id="comma-in-path"),
        pytest.param("$anyvm,  $x allow", "token", 10, id="column-after-replacement"),
        pytest.param("a b allow,target=$tag:x", "token", 18, id="redirect"),
    ],
)
def test_the_old_syntax_has_its_own_flaws(line: str, kind: str, column: int) -> None:
    found = error(line, LEGACY)
    assert (found.kind, found.line, found.column) == (kind, 1, column)


def test_the_old_syntax_is_read_by_replacement() -> None:
    (rule,) = rules("$anyvm $default allow,target=dom0,,user=root,", LEGACY)
    assert format_rule(rule) == "svc * @anyvm @default allow target=dom0 user=root"
    (rule,) = rules("x$include:y deny", LEGACY)
    assert rule.source == Named("x!include")
    assert steps("$include:a\n!include b", LEGACY) == [
        DirectiveLine(Include("a"), 1, 10),
        DirectiveLine(Include("b"), 2, 10),
    ]


def test_the_new_syntax_replaces_nothing() -> None:
    (rule,) = rules("svc * $anyvm a,b deny")
    assert (rule.source, rule.target) == (Named("$anyvm"), Named("a,b"))


def test_directives_and_rules_come_in_order() -> None:
    text = "!include a\na * b c deny\nb * b c deny\n !include-service a +  p\n!include-dir d\n!compat-4.0"
    first, run, *rest = steps(text)
    assert isinstance(run, list)
    assert [rule.line for rule in run] == [2, 3]
    assert [first, *rest] == [
        DirectiveLine(Include("a"), 1, 10),
        DirectiveLine(IncludeService("a", "+", "p"), 4, 24),
        DirectiveLine(IncludeDirectory("d"), 5, 14),
        DirectiveLine(Compat(), 6, 1),
    ]


def test_every_parameter_has_its_default_and_its_value() -> None:
    lines = "\n".join(
        f"a * b c {action}"
        for action in (
            "deny",
            "deny notify=no",
            "allow",
            "allow user= autostart=no notify=yes target=@adminvm",
            "ask",
            "ask default_target=uuid:x user=a=b autostart=yes",
        )
    )
    assert [rule.action for rule in rules(lines)] == [
        Deny(),
        Deny(notify=False),
        Allow(),
        Allow(parse.read_redirect("@adminvm"), "", False, True),
        Ask(),
        Ask(None, Named("uuid:x"), "a=b", True, False),
    ]


@pytest.mark.parametrize("name", ["deny", "*x", "a=b", "dom0,work", "uuid:junk", "$anyvm", "#x", "é", "!x"])
def test_any_other_word_is_a_name(name: str) -> None:
    (rule,) = rules(f"a * {name} {name} deny")
    assert rule.source == rule.target == Named(name)


def test_bytes_that_are_no_text_come_before_flawed_lines() -> None:
    found = error(b"bad\n\xff")
    assert (found.kind, found.line, found.column) == ("encoding", None, None)
    assert str(found) == "30.policy: expected UTF-8, found byte 0xff at offset 4"


def test_what_comes_from_the_file_cannot_forge_a_log_line() -> None:
    found = error("a * b c \x1b[2J\u202e" + "x" * 9999)
    assert str(found).isascii()
    assert str(found).isprintable()
    assert len(str(found)) < 300
    assert str(PolicyError("io", "gone", file="a\nb.policy:1: fine")) == r"'a\nb.policy:1: fine': gone"


@pytest.mark.parametrize(
    ("ending", "ends"),
    [
        *(pytest.param(text, True, id=repr(text)) for text in ("\n", "\r\n", "\r")),
        *(pytest.param(chr(code), False, id=f"{code:#06x}") for code in (0x0B, 0x0C, 0x1C, 0x85, 0x2028)),
    ],
)
def test_only_lf_and_cr_end_a_line(ending: str, ends: bool) -> None:
    text = f"a * b c deny{ending}b * b c deny"
    if ends:
        assert [rule.line for rule in rules(text)] == [1, 2]
    else:
        assert error(text).kind == "param-syntax"


def test_words_are_parted_by_what_the_grammar_and_the_columns_call_white_space() -> None:
    characters = list(map(chr, range(sys.maxunicode + 1)))
    blanks = [character for character in characters if len(f"a{character}b".split()) == 2]
    assert blanks == re.findall(r"\s", "".join(characters))
    for blank in blanks:
        if blank not in "\n\r":
            (rule,) = rules(blank + blank.join(["a", "*", "b", "c", "deny"]) + blank)
            assert format_rule(rule) == "a * b c deny"
    for code in (0x200B, 0x2060, 0xFEFF, 0x180E):
        assert error(f"a * b{chr(code)}c deny").kind == "field-count"


@settings(max_examples=300)
@given(strategies.rules)
def test_a_rule_written_and_read_is_the_same(rule: Rule) -> None:
    (again,) = rules(format_rule(rule))
    assert (again.service, again.argument) == (rule.service, rule.argument)
    assert (again.source, again.target, again.action) == (rule.source, rule.target, rule.action)
    assert format_rule(again) == format_rule(rule)


WHOLE_LINES = Lark.open(
    str(Path(parse.__file__).with_name("rule.lark")),
    parser="lalr",
    start=["rule", "legacy_rule", "directive"],
)
WORDS = st.sampled_from(
    [
        "a",
        "*",
        "+",
        "+x",
        "x",
        "a/",
        "@anyvm",
        "@adminvm",
        "@default",
        "@dispvm",
        "@dispvm:x",
        "@dispvm:@tag:t",
        "@tag:t",
        "@tag:",
        "@type:T",
        "@x",
        "*x",
        "dom0",
        "allow",
        "ask",
        "deny",
        "alow",
        "notify=yes",
        "x=y",
        "junk",
    ]
)


@settings(max_examples=500)
@given(st.lists(WORDS, min_size=1, max_size=7), st.sampled_from([" ", "\t", "  ", "\u2003"]))
def test_the_grammar_of_a_whole_line_is_that_of_its_fields(words: list[str], blank: str) -> None:
    """Where it says less: which keys and values go together is judged beyond it, in section 3.3's order."""
    beyond = {"param-unknown", "param-duplicate", "default-needs-target", "param-syntax"}
    for start, origin in (("rule", MODERN), ("legacy_rule", LEGACY)):
        try:
            steps(blank.join(words), origin)
            fields: str | None = None
        except PolicyError as flaw:
            if flaw.kind == "wildcard-argument":
                continue  # which hides what is wrong after it
            fields = None if flaw.kind in beyond else flaw.kind
        try:
            tree = WHOLE_LINES.parse(blank.join(words), start=start)
            whole = any(subtree.data == "argument_without_plus" for subtree in tree.iter_subtrees())
        except LarkError:
            whole = True
        assert whole == (fields is not None)


def test_the_target_of_a_default_may_be_denied_or_asked() -> None:
    assert [rule.target for rule in rules("a * b @default deny\na * b @default ask")] == [NoTarget()] * 2
