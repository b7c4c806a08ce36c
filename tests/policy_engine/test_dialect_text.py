"""What stands in the fields and directives of the dialect, and what is wrong with what does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policy_engine import Allow, Allowance, Ask, Catalogue, DelegationRule, Deny, PolicyError, format_rule
from policy_engine.dialect import MAX_ATOMS, MAX_DEPTH, MAX_TEXT
from policy_engine.model import AdminQube, Disposable, Named
from policy_engine.values import Numbers, Qubes, TextPattern, Texts
from tests.policy_engine.catalogue import carried_out, only_evaluated
from tests.policy_engine.delegated import DIALECT, error_of, loader, policy_of


def rule_of(text: str) -> DelegationRule:
    """The one rule of a file."""
    (rule,) = policy_of(text).rules
    assert isinstance(rule, DelegationRule)
    return rule


@pytest.mark.parametrize(
    ("text", "covered", "uncovered"),
    [
        pytest.param("s.A|s.B", "s.A s.B", "s.C s.", id="names"),
        pytest.param("s.*", "s. s.A", "s admin.x", id="glob"),
        pytest.param("*", "x admin", "admin.vm.List admin.x policy.List", id="star-covers-nothing-guarded"),
        pytest.param("ad*", "ad adx", "admin.vm.List", id="nor-does-a-glob-that-begins-like-it"),
        pytest.param("admin.*|policy.*", "admin.vm.List admin.x policy.List", "x", id="guarded-globs"),
        pytest.param("@read", "admin.vm.List policy.List", "admin.vm.Start x", id="set"),
        pytest.param("@execute:local|x", "admin.vm.Start x", "admin.vm.List", id="set-with-scope"),
        pytest.param("@execute:global", "", "admin.vm.Start", id="empty-set"),
        pytest.param("@write", "admin.vm.property.Set admin.vm.Create.AppVM", "admin.vm.List", id="scopes"),
    ],
)
def test_services(text: str, covered: str, uncovered: str) -> None:
    rule = rule_of(f"{text} * * * deny\n")
    assert all(rule.covers_service(service) for service in covered.split())
    assert not any(rule.covers_service(service) for service in uncovered.split())


@pytest.mark.parametrize(
    ("text", "covered", "uncovered"),
    [
        pytest.param("*", "+ +x", "", id="any"),
        pytest.param("+", "+", "+x", id="empty"),
        pytest.param("+a+b|+c", "+a+b +c", "+ +a", id="names"),
        pytest.param("+a*|+", "+a +ab +", "+b", id="glob"),
        pytest.param("+*", "+ +x", "", id="glob-of-all"),
    ],
)
def test_arguments(text: str, covered: str, uncovered: str) -> None:
    rule = rule_of(f"s {text} * * deny\n")
    assert all(rule.covers_argument(argument) for argument in covered.split())
    assert not any(rule.covers_argument(argument) for argument in uncovered.split())


@pytest.mark.parametrize(
    ("text", "action"),
    [
        pytest.param("allow", Allow(), id="allow"),
        pytest.param("deny notify=no", Deny(False), id="deny"),
        pytest.param("ask  default_target=x\tautostart=no", Ask(None, Named("x"), None, False), id="ask"),
        pytest.param("allow target=@dispvm user=root", Allow(Disposable(), "root"), id="redirect"),
        pytest.param("allow target=@adminvm", Allow(AdminQube()), id="dom0"),
    ],
)
def test_actions_are_those_of_the_stock_language(text: str, action: Allow | Ask | Deny) -> None:
    assert rule_of(f"s * * * {text}\n").action == action


_SET = "admin.vm.property.Set"


@pytest.mark.parametrize(
    ("call", "text", "matcher"),
    [
        pytest.param("+memory", "256..4096|1GiB", Numbers(((256, 4096), (1024, 1024))), id="ranges"),
        pytest.param("+memory", "none", Numbers((), True), id="none"),
        pytest.param("+vcpus", "(1|3..4)", Numbers(((1, 1), (3, 4))), id="numbers"),
        pytest.param("+vcpus", "1KiB", Numbers(((1024, 1024),)), id="unit-of-a-plain-number"),
        pytest.param(
            "+label",
            "(red|{source}_*)",
            Texts((TextPattern("red"), TextPattern("{source}_", True))),
            id="texts",
        ),
        pytest.param("+label", "(none)", Texts((), True), id="only-none"),
    ],
)
def test_values(call: str, text: str, matcher: object) -> None:
    value = rule_of(f"{_SET} {call} * * allow value={text}\n").value
    assert value is not None
    assert value.keys == (("", matcher),)


def test_values_with_keys_and_of_qubes() -> None:
    created = rule_of(
        "admin.vm.Create.AppVM * * * ask value=( name={source}_*  label=red|green ) notify=yes\n"
    ).value
    assert created is not None
    assert [key for key, _ in created.keys] == ["name", "label"]
    assert created.text == "( name={source}_* label=red|green )"
    given = rule_of(f"{_SET} +netvm * * allow value=(@tag:net,!x|none)\n").value
    assert given is not None
    ((key, matcher),) = given.keys
    assert (key, isinstance(matcher, Qubes) and matcher.expression.text, matcher.none) == (
        "",
        "@tag:net,!x",
        True,
    )


def test_limits() -> None:
    (limit,) = policy_of("!limit  @tag:op,!x qubes=10 running=4 memory=8GiB storage=1TiB\n").limits
    assert limit.source.text == "@tag:op,!x"
    assert limit.allowance == Allowance(10, 4, 8 * 2**30, 2**40)
    assert (limit.file, limit.line) == ("/etc/qubes/policy.d/1.policy", 2)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        pytest.param("a|b,!c", "a|b,!c", id="as-written"),
        pytest.param("uuid:x|@tag:a:b|@type:AppVM|@label:red|@template:t", None, id="tokens"),
        pytest.param("@default|@dispvm|@dispvm:x|@dispvm:@tag:t|@anyvm|*", None, id="targets"),
        pytest.param("dom0", "@adminvm", id="dom0-in-one-spelling"),
        pytest.param("x-{source}|@tag:by-{source}_y", None, id="callers"),
        pytest.param("none|allow|@tag:none", None, id="words-are-names"),
    ],
)
def test_qubes(text: str, expanded: str | None) -> None:
    assert rule_of(f"s * * {text} deny\n").reach.target.text == (expanded or text)


def test_the_comma_binds_tighter_than_the_bar_even_around_a_defined_name() -> None:
    target = rule_of("!define @x (a|b)\ns * * @x,!@x|c deny\n").reach.target
    assert target.matches(frozenset({"c"}))
    assert not target.matches(frozenset({"a"}))
    assert not target.matches(frozenset({"a", "@existing"}))


_LONG = "x" * (MAX_TEXT + 1)
_MANY = "|".join(["x"] * (MAX_ATOMS + 1))
_DEEP = "!define @d0 (x)\n" + "".join(
    f"!define @d{number + 1} (!@d{number})\n" for number in range(MAX_DEPTH + 1)
)


@pytest.mark.parametrize(
    ("text", "kind", "column"),
    [
        pytest.param("s * * *", "field-count", 8, id="too-few-words"),
        pytest.param("  s * * *  ", "field-count", 10, id="too-few-words-indented"),
        pytest.param("s/ * * * deny", "service-chars", 2, id="service"),
        pytest.param("s|| * * * deny", "service-chars", 3, id="empty-service"),
        pytest.param("s| * * * deny", "service-chars", 3, id="service-missing"),
        pytest.param("*x * * * deny", "service-chars", 2, id="glob-in-front"),
        pytest.param("@reads * * * deny", "service-chars", 1, id="no-set"),
        pytest.param("@read:all * * * deny", "service-chars", 1, id="no-scope"),
        pytest.param(f"{_LONG} * * * deny", "service-chars", MAX_TEXT + 1, id="too-long"),
        pytest.param("s +é * * deny", "argument-chars", 4, id="argument"),
        pytest.param("s +a|b * * deny", "argument-chars", 6, id="mixed-argument"),
        pytest.param("s +a*b * * deny", "argument-chars", 6, id="glob-inside"),
        pytest.param("s @default * * deny", "token", 3, id="argument-names-no-default"),
        pytest.param("s * @dispvm * deny", "token", 5, id="source-is-no-disposable"),
        pytest.param("s * a|@default * deny", "token", 7, id="source-is-no-default"),
        pytest.param("s * !!a * deny", "token", 6, id="twice-not"),
        pytest.param("s * * (a) deny", "token", 7, id="brackets"),
        pytest.param("s * * a,|b deny", "token", 9, id="missing-part"),
        pytest.param("s * * @mine deny", "token", 7, id="undefined"),
        pytest.param("s * * @tag: deny", "token", 7, id="empty-tag"),
        pytest.param("s * * a{sorce} deny", "token", 7, id="misspelt-hole"),
        pytest.param("s * * {source}{source} deny", "token", 7, id="two-holes"),
        pytest.param(f"s * * {_MANY} deny", "token", 7, id="too-many-atoms"),
        pytest.param("s * * * permit", "action-unknown", 9, id="action"),
        pytest.param("s * * * !include", "action-unknown", 17, id="frame-of-nothing"),
        pytest.param("s * * * !include a b", "action-unknown", 19, id="frame-of-two"),
        pytest.param("s * * * allow now", "param-syntax", 15, id="bare-word"),
        pytest.param("s * * * allow user=a user=b", "param-duplicate", 22, id="twice"),
        pytest.param("s * * * allow notify=maybe", "param-bool", 22, id="bool"),
        pytest.param("s * * * deny user=x", "param-unknown", 14, id="unknown"),
        pytest.param("s * * * allow target=@anyvm", "token", 22, id="redirect-token"),
        pytest.param("admin.* * * * allow target=x", "redirect", 21, id="redirect-of-admin-calls"),
        pytest.param("s * * * deny value=x", "value", 14, id="deny-takes-no-value"),
        pytest.param("s * * * allow value=x", "value", 15, id="value-of-other-services"),
        pytest.param(f"{_SET}|s +label * * allow value=x", "value", 42, id="value-of-mixed-services"),
        pytest.param("admin.vm.Start * * * allow value=x", "value", 28, id="no-payload"),
        pytest.param(f"{_SET} * * * allow value=x", "value", 35, id="no-form-for-all"),
        pytest.param(f"{_SET} +memory|+label * * allow value=1", "value", 54, id="two-types"),
        pytest.param(f"{_SET} +label * * allow value=(a=b)", "value", 49, id="key-of-a-single-value"),
        pytest.param("admin.vm.Create.AppVM * * * allow value=x", "value", 41, id="single-of-keys"),
        pytest.param("admin.vm.Create.AppVM * * * allow value=(kernel=x)", "value", 49, id="unknown-key"),
        pytest.param("admin.vm.Create.AppVM * * * allow value=(name=x name=y)", "value", 49, id="key-twice"),
        pytest.param("admin.vm.Create.AppVM * * * allow value=(name=x", "param-syntax", 48, id="not-closed"),
        pytest.param(f"{_SET} +label * * allow value=x value=y", "value", 48, id="value-twice"),
        pytest.param(f"{_SET} +label * * allow value=x*y", "value", 46, id="star-inside"),
        pytest.param(f"{_SET} +label * * allow value={{source}}*", "value", 46, id="open-after-the-caller"),
        pytest.param(
            f"{_SET} +label * * allow value=x-{{sorce}}_*", "value", 46, id="misspelt-hole-in-a-value"
        ),
        pytest.param(f"{_SET} +memory * * allow value=9..8", "value", 47, id="backwards"),
        pytest.param(f"{_SET} +memory * * allow value=1..2..3", "value", 47, id="three-ends"),
        pytest.param(f"{_SET} +memory * * allow value=1KiB", "value", 47, id="less-than-a-MiB"),
        pytest.param(f"{_SET} +memory * * allow value={'0' * 20}256", "value", 47, id="too-many-digits"),
        pytest.param(f"{_SET} +memory * * allow value=²", "value", 47, id="no-digit"),
        pytest.param(f"{_SET} +memory * * allow value={2**63}", "value", 47, id="too-much"),
        pytest.param(f"{_SET} +memory * * allow value=-1", "value", 47, id="negative"),
        pytest.param(f"{_SET} +netvm * * allow value=(none|@dispvm)", "token", 52, id="no-qube"),
        pytest.param("admin.vm.Start * * * allow remember=1m", "remember", 28, id="allow-remembers-nothing"),
        pytest.param("admin.vm.Start * * * ask remember=1d", "remember", 35, id="days"),
        pytest.param("admin.vm.Start * * * ask remember=25h", "remember", 35, id="too-long-a-time"),
        pytest.param("admin.vm.Start * * * ask remember=0s", "remember", 35, id="no-time"),
        pytest.param(f"{_SET} * * * ask remember=1m", "remember", 33, id="payload"),
        pytest.param("s * * * ask remember=1m", "remember", 13, id="unknown-payload"),
        pytest.param("s|policy.* * * * ask remember=1m", "remember", 22, id="unknown-behind-a-glob"),
        pytest.param("!define mine (a)", "define", 9, id="define-without-at"),
        pytest.param("!define @mine a", "define", 15, id="define-without-brackets"),
        pytest.param("!define @mine (b", "define", 17, id="define-not-closed"),
        pytest.param("!define @tag (a)", "define", 9, id="built-in"),
        pytest.param("!define @read (a)", "define", 9, id="set-name"),
        pytest.param("!define @a (b)\n  !define @a (c)", "define", 11, id="defined-twice"),
        pytest.param("!define @a (@b)", "token", 13, id="defined-below"),
        pytest.param("!define @a (@default)\ns * @a * deny", "token", 5, id="no-source-by-another-name"),
        pytest.param(_DEEP, "token", 1, id="too-deep"),
        pytest.param("!limit", "limit", 7, id="empty-limit"),
        pytest.param("!limit x", "limit", 9, id="limit-of-nothing"),
        pytest.param("!limit @default qubes=1", "token", 8, id="limit-of-no-source"),
        pytest.param("!limit x disks=1", "limit", 10, id="unknown-bound"),
        pytest.param("!limit x qubes=1 qubes=2", "limit", 18, id="bound-twice"),
        pytest.param("!limit x qubes=1GiB", "limit", 16, id="qubes-have-no-unit"),
        pytest.param("!limit x memory=1", "limit", 17, id="memory-has-a-unit"),
        pytest.param("!limit x memory=", "limit", 17, id="no-number"),
        pytest.param("!dialect delegation-1", "directive-unknown", 1, id="dialect-again"),
        pytest.param("!include-service s * x", "directive-unknown", 1, id="include-service"),
        pytest.param("!compat-4.0", "directive-unknown", 1, id="compat"),
        pytest.param("!include", "directive-params", 1, id="include-of-nothing"),
        pytest.param("  !include   include/gone", "not-a-file", 14, id="include-missing"),
        pytest.param("!include-dir gone", "not-a-directory", 14, id="directory-missing"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, kind: str, column: int) -> None:
    error = error_of(f"\n{text}\n")
    last = 2 + len(text.rstrip("\n").split("\n"))
    assert (error.kind, error.line, error.column) == (kind, last, column)
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("!limit x qubes=1", "needs-core", id="limit"),
        pytest.param(f"{_SET} +label * * allow value=x", "needs-core", id="value"),
        pytest.param("admin.vm.Create.AppVM * * * ask", "needs-core", id="subjects"),
        pytest.param("@execute * * * allow", "needs-core", id="set"),
        pytest.param("admin.* * * * allow", "needs-core", id="glob"),
    ],
)
def test_what_needs_a_core_is_refused_without_one(text: str, kind: str) -> None:
    assert error_of(text, only_evaluated).kind == kind
    policy_of(text, carried_out)


@pytest.mark.parametrize(
    "text",
    [
        "qubes.Filecopy * @tag:a @tag:a,!x allow",
        "* * * @dispvm ask",
        "admin.* * * * deny",
        "@read * * * allow",
    ],
)
def test_what_needs_none_loads_there(text: str) -> None:
    assert len(policy_of(text, only_evaluated).rules) == 1


@pytest.mark.parametrize("catalogue", [carried_out, only_evaluated])
def test_a_rule_reads_again_as_it_is_told(catalogue: Callable[[], Catalogue]) -> None:
    """In a file with the same definitions, and on the same line."""
    defines = "!define @mine (@tag:by-{source}|{source})\n"
    texts = ["s.*|t\t+a*|+ @mine @mine,!x \t ask  default_target=@dispvm", " * * * !@mine deny notify=no"]
    if catalogue is carried_out:
        texts.append("admin.vm.Create.AppVM  @mine * * allow value=(  name=x\tlabel=red|none )  notify=yes")
        texts.append("admin.vm.Start * * * ask remember=90s")
    for text in texts:
        (rule,) = policy_of(f"{defines}{text}\n", catalogue).rules
        (again,) = policy_of(f"{defines}{format_rule(rule)}\n", catalogue).rules
        assert again == rule


def test_an_error_is_told_once_for_each_line() -> None:
    files = {"1.policy": DIALECT + "s| * * * deny\n!limit x\ns * * * deny\n* * a| * deny\n"}
    found = loader(files).check()
    assert [(error.kind, error.line) for error in found] == [("service-chars", 2), ("limit", 3), ("token", 5)]
    assert all(isinstance(error, PolicyError) for error in found)
