"""Laws of decisions and lists over policies of both languages, by the literal reading of the design."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from policy_engine import (
    Allow,
    Ask,
    Asked,
    DelegationRule,
    Denied,
    Deny,
    Policy,
    QubeFacts,
    Request,
    World,
    decide,
    explain,
    format_rule,
    hidden,
    visible,
)
from tests.policy_engine import literal, literal_dialect
from tests.policy_engine.catalogue import ENTRIES
from tests.policy_engine.delegated import loader
from tests.policy_engine.strategies_dialect import CALLS, HEAD, NAMES, Both, policies, qubes, requests, worlds

some = settings(max_examples=70, deadline=None)
many = settings(max_examples=120, deadline=None)


@many
@given(policies, worlds, requests)
def test_decides_as_the_design_says_it(policy: Both, world: World, asked: list[Request]) -> None:
    for request in asked:
        assert decide(policy.loaded, request, world) == literal_dialect.decide(policy.written, request, world)


@some
@given(policies, worlds, st.sampled_from(CALLS))
def test_visible_is_decide_one_by_one(policy: Both, world: World, called: str) -> None:
    for source in ("a", "a_b", "alpha", "gone", "dom0"):
        request = Request.of(called, source, "")
        names = literal_dialect.qubes_allowed(policy.written, request, world)
        assert visible(policy.loaded, world, source, request.service, request.argument) == names


# More services and arguments than any rule here can tell apart.
_SERVICES = (
    *(
        "s.A",
        "s.B",
        "s.x",
        "sx",
        "t",
        "other",
        "x",
        "admin.vm.List",
        "admin.vm.Start",
        "admin.vm.property.Set",
    ),
    *(
        "admin.vm.device.block.Attach",
        "admin.vm.Create.AppVM",
        "admin.vm.Gone",
        "admin.vm.x",
        "admin.x",
        "policy.List",
    ),
    *("policy.Gone", "policy.x"),
)
_ARGUMENTS = (
    "+",
    "+x",
    "+xz",
    "+y",
    "+z",
    "+az",
    "+a+dev",
    *(f"+{name}{more}" for name in NAMES for more in ("", "+q")),
)


@some
@given(policies, worlds)
def test_hidden_is_what_no_call_at_all_is_granted_on(policy: Both, world: World) -> None:
    for source, name in product(("a", "alpha"), world.names):
        calls = (Request(*call, source, name) for call in product(_SERVICES, _ARGUMENTS))
        denied = all(isinstance(decide(policy.loaded, call, world), Denied) for call in calls)
        assert hidden(policy.loaded, world, source, name) is denied


@some
@given(policies, policies, worlds, requests)
def test_rules_after_a_matching_allow_or_deny_change_nothing(
    policy: Both, after: Both, world: World, asked: list[Request]
) -> None:
    rules = [*policy.loaded.rules, *after.loaded.rules]
    longer = Policy(rules, catalogue=policy.loaded.catalogue)
    for request in asked:
        alone = decide(policy.loaded, request, world)
        if alone.rule is not None and isinstance(alone.rule.action, Allow | Deny):
            assert decide(longer, request, world) == alone


@some
@given(policies, worlds, requests)
def test_a_question_offers_what_its_own_rule_decides(
    policy: Both, world: World, asked: list[Request]
) -> None:
    for request in asked:
        answer = decide(policy.loaded, request, world)
        if not isinstance(answer, Asked) or not isinstance(answer.rule, DelegationRule):
            continue
        assert isinstance(answer.rule.action, Ask)
        if request.service in ENTRIES or answer.rule.action.target is not None:
            continue
        for choice in answer.targets:
            chosen = decide(policy.loaded, request._replace(target=choice), world)
            assert chosen.rule is answer.rule


@many
@given(policies, worlds, st.tuples(*[st.text()] * 5))
def test_any_text_gets_an_answer(
    policy: Both, world: World, untrusted: tuple[str, str, str, str, str]
) -> None:
    service, argument, source, target, remote = untrusted
    assert decide(policy.loaded, Request(*untrusted), world).notify in (True, False)
    assert set(visible(policy.loaded, world, source, service, argument)) <= set(world.names)
    assert hidden(policy.loaded, world, source, target) in (True, False)
    explain(policy.loaded, Request(service, argument, source, target, remote), world)


@some
@given(policies, worlds, requests)
def test_it_explains_what_decide_says_rule_by_rule(policy: Both, world: World, asked: list[Request]) -> None:
    for request in asked:
        explained = explain(policy.loaded, request, world)
        assert explained.decision == decide(policy.loaded, request, world)
        if explained.target is None:
            assert isinstance(literal.checked(request.target or "@default", world), Denied) or (
                request.requested_source
            )
            continue
        source = request.requested_source or request.source
        near = []
        for written in policy.written:
            wrong = literal_dialect.missed(written, request, explained.target, source, world)
            if not wrong:
                break
            if len(wrong) == 1:
                near.append((wrong[0], written.rule))
        assert [(miss.field, miss.rule) for miss in explained.near_misses] == near


@some
@given(policies)
def test_a_rule_reads_again_as_it_is_told(policy: Both) -> None:
    for rule in policy.loaded.rules:
        if isinstance(rule, DelegationRule):
            (again,) = loader({"1.policy": HEAD + format_rule(rule)}).load().rules
            assert isinstance(again, DelegationRule)
            assert (again.text, again.reach, again.action) == (rule.text, rule.reach, rule.action)


@some
@given(qubes(), qubes())
def test_derived_worlds_are_those_made_anew(before: list[QubeFacts], after: list[QubeFacts]) -> None:
    """With labels and templates, which only the dialect asks about."""
    world = World.of(before)
    there = {facts.name: facts for facts in before}
    for facts in after:
        world = world.with_qube(facts)
        there[facts.name] = facts
        assert world == World.of(there.values())
    for facts in before:
        world = world.without(facts.name)
        del there[facts.name]
        assert world == World.of(there.values())
