"""Laws of decisions and lists, over drawn policies, worlds and requests."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from policy_engine import (
    Allow,
    Allowed,
    Asked,
    Deny,
    Policy,
    Request,
    Rule,
    World,
    decide,
    respond,
    settle,
    visible,
)
from tests.policy_engine import literal, strategies

some = settings(max_examples=100, deadline=None)
many = settings(max_examples=200, deadline=None)
EVERY_REQUEST = list(strategies.every_request())


@some
@given(strategies.policies, strategies.worlds())
def test_decides_as_the_specification_says_it(policy: Policy, world: World) -> None:
    for request in EVERY_REQUEST:
        assert decide(policy, request, world) == literal.decide(policy, request, world)


@many
@given(strategies.policies, strategies.worlds(), st.sampled_from(["+", "+x"]))
def test_visible_is_decide_one_by_one(policy: Policy, world: World, argument: str) -> None:
    for service, source in product(("s.A", "other"), strategies.CALLERS):
        allowed = [
            name
            for name in world.names
            if isinstance(decide(policy, Request(service, argument, source, name), world), Allowed)
        ]
        assert visible(policy, world, source, service, argument) == allowed


@some
@given(strategies.policies, st.lists(strategies.rules, min_size=1, max_size=5), strategies.worlds())
def test_rules_after_a_matching_allow_or_deny_change_nothing(
    policy: Policy, after: list[Rule], world: World
) -> None:
    longer = Policy([*policy.rules, *after])
    for request in EVERY_REQUEST:
        alone = decide(policy, request, world)
        if alone.rule is not None and isinstance(alone.rule.action, Allow | Deny):
            assert decide(longer, request, world) == alone


@many
@given(
    strategies.policies,
    st.tuples(st.text(), st.text(), st.text(), st.text(), st.one_of(st.none(), st.text())),
    strategies.worlds(),
)
def test_any_text_gets_an_answer(
    policy: Policy, untrusted: tuple[str, str, str, str, str | None], world: World
) -> None:
    assert decide(policy, Request(*untrusted), world).notify in (True, False)


@some
@given(strategies.policies, strategies.worlds(), st.text(max_size=12))
def test_every_question_comes_to_an_end(policy: Policy, world: World, said: str) -> None:
    for request in EVERY_REQUEST:
        asked = decide(policy, request, world)
        if isinstance(asked, Asked):
            assert asked.targets
            answers = ("deny", said, f"allow:{said}", *(f"allow:{choice}" for choice in asked.targets))
            for answer in (None, *answers):
                settled = settle(asked, answer, world)
                if isinstance(settled, Allowed):
                    assert settled.target in asked.targets
                    respond(settled, request, world)
