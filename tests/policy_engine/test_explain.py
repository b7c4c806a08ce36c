"""What an author is told of a decision."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from policy_engine import (
    CONFIGURED,
    LEGACY,
    RUNTIME,
    Demands,
    Denied,
    Inclusion,
    MemorySource,
    Policy,
    QubeFacts,
    Request,
    World,
    decide,
    explain,
    format_rule,
    inclusions,
    load,
)
from tests.policy_engine import literal, strategies
from tests.policy_engine.catalogue import carried_out
from tests.policy_engine.stock import stock

WORLD = World.of(
    [
        QubeFacts("dom0", None, "AdminVM"),
        QubeFacts("work", "1", "AppVM", frozenset({"office"})),
        QubeFacts("mgmt", "2", "AppVM"),
        QubeFacts("dvm", "3", "AppVM", template_for_dispvms=True),
    ]
)


@pytest.mark.parametrize(
    ("request_", "kind", "near"),
    [
        pytest.param(("s+", "mgmt", "work"), "rule", [], id="first-rule"),
        pytest.param(
            ("s+x", "mgmt", "work"),
            "no-rule",
            [("argument", 1), ("argument", 2), ("target", 3)],
            id="argument",
        ),
        pytest.param(("s+", "dvm", "work"), "no-rule", [("source", 1), ("source", 2)], id="source-twice"),
        pytest.param(("s+", "mgmt", "mgmt"), "rule", [("target", 1)], id="the-second-decides"),
        pytest.param(("t+", "mgmt", "work"), "no-rule", [("service", 1), ("service", 2)], id="service"),
        pytest.param(("s+x", "mgmt", "dvm"), "rule", [("argument", 2)], id="two-fields-off-is-not-near"),
        pytest.param(("s+", "mgmt", "@dispvm:gone"), "not-dispvm-template", [], id="before-any-rule"),
    ],
)
def test_near_misses(request_: tuple[str, str, str], kind: str, near: list[tuple[str, int]]) -> None:
    text = b"s + mgmt @tag:office deny\ns + mgmt @anyvm deny\ns * mgmt dvm deny\n"
    policy = load(MemorySource({f"{CONFIGURED}/1.policy": text}, (RUNTIME, CONFIGURED, LEGACY)))
    explained = explain(policy, Request.of(*request_), WORLD)
    assert isinstance(explained.decision, Denied)
    assert explained.decision.kind == kind
    assert [(miss.field, miss.rule.line) for miss in explained.near_misses] == near


def test_the_chain_of_includes_is_told_from_the_nearest_on() -> None:
    files = {
        f"{CONFIGURED}/1.policy": b"# first\n!include include/a\n",
        f"{CONFIGURED}/include/a": b"!include-service s * include/b\n",
        f"{CONFIGURED}/include/b": b"$anyvm work allow\n",
    }
    policy = load(MemorySource(files, (RUNTIME, CONFIGURED, LEGACY)))
    rule = explain(policy, Request.of("s", "mgmt", "work"), WORLD).decision.rule
    assert rule is not None
    assert format_rule(rule) == "s * @anyvm work allow"
    top = Inclusion(f"{CONFIGURED}/1.policy", 2)
    assert list(inclusions(rule)) == [Inclusion(f"{CONFIGURED}/include/a", 1, top), top]


@settings(max_examples=100, deadline=None)
@given(strategies.policies, strategies.worlds())
def test_it_explains_what_decide_says_rule_by_rule(policy: Policy, world: World) -> None:
    for request in strategies.every_request():
        explained = explain(policy, request, world)
        assert explained.decision == decide(policy, request, world)
        target = literal.checked(request.target or "@default", world)
        assert explained.target == (None if explained.target is None else target)
        if explained.target is None:
            continue
        assert isinstance(target, str)
        source = request.requested_source or request.source
        near = []
        for rule in stock(policy.rules):
            off = {
                "service": rule.service not in ("*", request.service),
                "argument": rule.argument not in ("*", request.argument),
                "source": not literal.matches(rule.source, source, source, world),
                "target": not literal.matches(rule.target, target, source, world),
            }
            wrong = [field for field, is_off in off.items() if is_off]
            if not wrong:
                break
            if len(wrong) == 1:
                near.append((wrong[0], rule))
        assert [(miss.field, miss.rule) for miss in explained.near_misses] == near


DIALECT = b"""\
!dialect delegation-1
!define @mine (@tag:of-{source})
admin.vm.property.Set +memory mgmt @mine allow value=1..2
admin.vm.List * mgmt @mine allow
admin.vm.Start * mgmt @mine deny
"""


@pytest.mark.parametrize(
    ("service", "demands"),
    [
        pytest.param(
            "admin.vm.property.Set+memory", Demands("@tag:of-mgmt", "1..2", None, None, None), id="value"
        ),
        pytest.param("admin.vm.List", Demands("@tag:of-mgmt", None, None, None, None), id="nothing-besides"),
        pytest.param("admin.vm.Start", None, id="denied"),
        pytest.param("s", None, id="no-rule"),
        pytest.param("stock", None, id="a-stock-rule"),
    ],
)
def test_what_a_rule_asks_for_besides(service: str, demands: Demands | None) -> None:
    files = {
        f"{CONFIGURED}/1.policy": DIALECT,
        f"{CONFIGURED}/2.policy": b"stock * mgmt work allow\n",
    }
    world = World.of(
        [QubeFacts("mgmt", "2", "AppVM"), QubeFacts("work", "1", "AppVM", frozenset({"of-mgmt"}))]
    )
    source = MemorySource(files, (RUNTIME, CONFIGURED, LEGACY))
    policy = load(source, catalogue=carried_out)
    assert explain(policy, Request.of(service, "mgmt", "work"), world).demands == demands
