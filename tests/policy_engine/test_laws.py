"""Laws of decisions and lists, over drawn policies, worlds and requests."""

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

many = settings(max_examples=200, deadline=None)


@many
@given(strategies.policies(), strategies.requests, strategies.worlds())
def test_decides_as_the_specification_says_it(policy: Policy, request: Request, world: World) -> None:
    assert decide(policy, request, world) == literal.decide(policy, request, world)


@many
@given(
    strategies.policies(),
    strategies.worlds(),
    strategies.callers,
    st.sampled_from(["s.A", "s.B", "other"]),
    st.sampled_from(["+", "+x", "+y"]),
)
def test_visible_is_decide_one_by_one(
    policy: Policy, world: World, source: str, service: str, argument: str
) -> None:
    allowed = [
        name
        for name in world.names
        if isinstance(decide(policy, Request(service, argument, source, name), world), Allowed)
    ]
    assert visible(policy, world, source, service, argument) == allowed


@many
@given(
    st.lists(strategies.rules, max_size=5),
    st.lists(strategies.rules, max_size=5),
    strategies.requests,
    strategies.worlds(),
)
def test_rules_after_a_matching_allow_or_deny_change_nothing(
    before: list[Rule], after: list[Rule], request: Request, world: World
) -> None:
    alone = decide(Policy(before), request, world)
    if alone.rule is not None and isinstance(alone.rule.action, Allow | Deny):
        assert decide(Policy([*before, *after]), request, world) == alone


@many
@given(
    strategies.policies(),
    st.tuples(st.text(), st.text(), st.text(), st.text(), st.one_of(st.none(), st.text())),
    strategies.worlds(),
)
def test_any_text_gets_an_answer(
    policy: Policy, untrusted: tuple[str, str, str, str, str | None], world: World
) -> None:
    assert decide(policy, Request(*untrusted), world).notify in (True, False)


@many
@given(strategies.policies(), strategies.requests, strategies.worlds(), st.text(max_size=12))
def test_every_question_comes_to_an_end(policy: Policy, request: Request, world: World, said: str) -> None:
    asked = decide(policy, request, world)
    if isinstance(asked, Asked):
        assert asked.targets
        for answer in (None, "deny", said, f"allow:{said}", *(f"allow:{choice}" for choice in asked.targets)):
            settled = settle(asked, answer, world)
            if isinstance(settled, Allowed):
                assert settled.target in asked.targets
                respond(settled, request, world)


@given(strategies.policies(), strategies.requests, strategies.worlds())
def test_an_index_in_use_answers_like_a_new_one(policy: Policy, request: Request, world: World) -> None:
    first = decide(policy, request, world)
    for target in world.names:
        decide(policy, request._replace(target=target), world)
    assert decide(policy, request, world) == first == decide(Policy(policy.rules), request, world)
