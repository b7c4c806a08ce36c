"""What a change of policy does to the calls of the qubes that are there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from policy_engine import (
    CONFIGURED,
    RUNTIME,
    Allowance,
    Catalogue,
    MemorySource,
    Policy,
    QubeFacts,
    Request,
    World,
    decide,
    format_rule,
    load,
)
from policy_engine import impact as module
from policy_engine.differing import differing
from policy_engine.impact import Impact, impact
from tests.policy_engine import strategies, strategies_dialect
from tests.policy_engine.catalogue import CATALOGUE, carried_out

WORLD = World.of(
    [
        QubeFacts("dom0", None, "AdminVM"),
        QubeFacts("alice", "1", "AppVM"),
        QubeFacts("bob", "2", "AppVM"),
        QubeFacts("work", "3", "AppVM", frozenset({"office"})),
        QubeFacts("vault", "4", "AppVM", frozenset({"office"})),
    ]
)
DIALECT = "!dialect delegation-1\n"
NOTHING = Catalogue({}, enforced=True)


def policy(text: str) -> Policy:
    return load(MemorySource({f"{CONFIGURED}/30.policy": text.encode()}, [RUNTIME]), catalogue=carried_out)


def shown(found: Impact) -> list[str]:
    return [
        f"{turn.source} {turn.service}{turn.argument if turn.argument != '+' else ''} {target} "
        f"{turn.before}>{turn.after}"
        for turn in found.turns
        for target in found.targets(turn.targets, 100)
    ]


START = "admin.vm.Start"
GRANTED = [("alice", "vault"), ("bob", "vault"), ("bob", "work")]


@pytest.mark.parametrize(
    ("before", "after", "want"),
    [
        pytest.param("s * alice work allow\n", "\n# x\ns  *  alice work allow\n", [], id="written-otherwise"),
        pytest.param("", "s * alice work allow\n", ["alice s work deny>allow"], id="granted"),
        pytest.param("s * alice work allow\n", "", ["alice s work allow>deny"], id="taken-away"),
        pytest.param(
            "s * alice work ask\n", "s * alice work allow\n", ["alice s work ask>allow"], id="not-asked"
        ),
        pytest.param(
            "s * alice work allow\ns * alice @tag:office deny\n",
            "s * alice @tag:office deny\ns * alice work allow\n",
            ["alice s work allow>deny"],
            id="order",
        ),
        pytest.param(
            "s +x alice work allow\n",
            "s * alice work deny\ns +x alice work allow\n",
            ["alice s+x work allow>deny"],
            id="an-argument-that-a-wildcard-hides",
        ),
        pytest.param(
            "s * alice work allow\n",
            "s * alice work allow user=root\n",
            ["alice s work allow>allow"],
            id="as-somebody-else",
        ),
        pytest.param(
            "s * alice @default allow target=work\n",
            "s * alice @default allow target=vault\n",
            ["alice s @default allow>allow"],
            id="elsewhere",
        ),
        pytest.param(
            "s * alice @default ask\ns * alice work ask\n",
            "s * alice @default ask\ns * alice work ask\ns * alice vault ask\n",
            [
                "alice s @default ask>ask",
                "alice s vault deny>ask",
                "alice s work ask>ask",
            ],
            id="other-choices",
        ),
        pytest.param(
            "s * alice work allow\n",
            "s * alice work allow notify=yes\n",
            [],
            id="what-is-only-told-makes-no-difference",
        ),
        pytest.param(
            f"{START} * alice @tag:office allow target=dom0\n",
            f"{START} * alice @tag:office allow\n",
            [f"alice {START} vault allow>deny", f"alice {START} work allow>deny"],
            id="an-admin-call-that-dom0-does-not-get",
        ),
        pytest.param(
            f"{DIALECT}{START} * alice work allow\n",
            f"{DIALECT}{START}|admin.vm.List * alice|bob @anyvm,@tag:office allow\n",
            [f"{caller} {START} {qube} deny>allow" for caller, qube in GRANTED],
            id="dialect",
        ),
        pytest.param(
            f"{DIALECT}admin.vm.property.Set +memory alice work allow value=1..1GiB\n",
            f"{DIALECT}admin.vm.property.Set +memory alice work allow value=1..2GiB\n",
            ["alice admin.vm.property.Set+memory work allow>allow"],
            id="another-value",
        ),
        pytest.param(
            "",
            f"{DIALECT}s +a* alice work allow\n",
            ["alice s+a work deny>allow"],
            id="a-glob-stands-for-its-shortest-argument",
        ),
        pytest.param("", "* * alice work allow\n", ["alice * work deny>allow"], id="any-service"),
        pytest.param("", f"{DIALECT}q.* * alice work allow\n", ["alice q.* work deny>allow"], id="a-glob"),
        pytest.param("", "s * gone work allow\n", ["gone s work deny>allow"], id="a-caller-that-is-named"),
        pytest.param(
            "s * @anyvm @anyvm allow\n",
            "* * @anyvm dom0 deny\ns * @anyvm @anyvm allow\n",
            [],
            id="what-was-denied-stays-denied",
        ),
    ],
)
def test_the_calls_that_are_answered_otherwise(before: str, after: str, want: list[str]) -> None:
    found = impact(policy(before), policy(after), WORLD, CATALOGUE, ["gone"])
    assert (sorted(shown(found)), found.whole) == (want, True)


def test_allowances_are_compared() -> None:
    before = policy(f"{DIALECT}!limit @anyvm qubes=3\n")
    after = policy(f"{DIALECT}!limit @anyvm qubes=3\n!limit bob running=1\n")
    found = impact(before, after, WORLD, CATALOGUE)
    assert found.allowances == (("bob", Allowance(qubes=3), Allowance(qubes=3, running=1)),)


def test_what_is_too_much_is_said_not_to_be_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    found = impact(policy(""), policy("s * @anyvm vault allow\n"), WORLD, CATALOGUE)
    assert (len(found.turns), found.whole) == (2, False)
    monkeypatch.setattr(module, "MOST_PAIRS", 7)
    found = impact(policy(""), policy("s * alice vault allow\ns * bob vault allow\n"), WORLD, CATALOGUE)
    assert (shown(found), found.whole) == (["alice s vault deny>allow"], False)


@settings(max_examples=50)
@given(strategies.policies, strategies.policies, strategies.worlds())
def test_no_call_that_differs_is_missed(before: Policy, after: Policy, world: World) -> None:
    found = impact(before, after, world, NOTHING)
    told = {
        (turn.argument, turn.source, target)
        for turn in found.turns
        for target in found.targets(turn.targets, 100)
    }
    callers = set(world.names) - {"dom0"}
    targets = {*world.names, *strategies.KEYWORDS} - {"", "@adminvm", "@dispvm:uuid:dvm-id"}
    for request in strategies.every_request():
        _, argument, source, target, _ = request
        if request.service == "s.A" and source in callers and target in targets - {source}:
            old, new = (type(decide(policy, request, world)) for policy in (before, after))
            told_as = {(one, source, target) for one in (argument, "+", "+*")[: 3 if argument != "+" else 1]}
            assert old is new or told & told_as


@settings(max_examples=30)
@given(strategies_dialect.policies, strategies_dialect.policies, strategies_dialect.qubes().map(World.of))
def test_what_is_told_is_so_in_the_dialect_too(
    before: strategies_dialect.Both, after: strategies_dialect.Both, world: World
) -> None:
    found = impact(before.loaded, after.loaded, world, CATALOGUE)
    for turn in found.turns:
        for target in found.targets(turn.targets, 3):
            request = Request(turn.service, turn.argument, turn.source, target)
            old, new = (decide(one.loaded, request, world) for one in (before, after))
            assert old != new


@given(strategies.policies)
def test_what_is_alike_does_not_differ(one: Policy) -> None:
    assert differing(one.rules, one.rules) == ([], [])
    assert differing(one.rules, one.rules[1:])[0]


@given(strategies.policies, strategies.policies)
def test_without_what_differs_two_policies_are_alike(before: Policy, after: Policy) -> None:
    gone, come = (list(map(id, rules)) for rules in differing(before.rules, after.rules))
    old = [format_rule(rule) for rule in before.rules if id(rule) not in gone]
    assert old == [format_rule(rule) for rule in after.rules if id(rule) not in come]
