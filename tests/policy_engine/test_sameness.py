"""``same``: where it says yes, no call in any world is decided differently."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_engine import Decision, Denied, Policy, World, decide
from policy_engine.sameness import same
from tests.policy_engine import strategies


def told(decision: Decision) -> object:
    """All of it but the rule that made it; that nothing matches is one way to deny."""
    if isinstance(decision, Denied):
        return "rule" if decision.kind == "no-rule" else decision.kind, decision.notify
    return type(decision), decision._replace(rule=None)  # type: ignore[arg-type]


_places = st.integers(0, 8)


@settings(max_examples=80)
@given(
    strategies.policies,
    st.lists(st.tuples(_places, _places, st.sampled_from(["move", "repeat", "drop"])), max_size=2),
    strategies.worlds(),
)
def test_rules_that_are_the_same_decide_the_same(
    policy: Policy, changes: Sequence[tuple[int, int, str]], world: World
) -> None:
    rules = list(policy.rules)
    for place, other, change in changes:
        rule = rules[place % len(rules)]
        if change == "move":
            rules.remove(rule)
        if change == "drop" and len(rules) > 1:
            rules.remove(rule)
        else:
            rules.insert(other % (len(rules) + 1), rule)
    changed = Policy(rules)
    for service in ("s.A", "s.B"):
        if same(service, policy.rules, changed.rules):
            for request in strategies.every_request():
                if request.service == service:
                    assert told(decide(policy, request, world)) == told(decide(changed, request, world))


@pytest.mark.parametrize(
    ("before", "after", "want"),
    [
        pytest.param("s * a b allow\ns * c b ask\n", "s * c b ask\ns * a b allow\n", True, id="two-callers"),
        pytest.param(
            "s * a b allow\ns * @tag:t b ask\n",
            "s * @tag:t b ask\ns * a b allow\n",
            False,
            id="one-may-be-both",
        ),
        pytest.param(
            "s * a b allow\ns * uuid:c b ask\n",
            "s * uuid:c b ask\ns * a b allow\n",
            False,
            id="perhaps-one-qube",
        ),
        pytest.param(
            "s +x a b allow\ns +y a b ask\n", "s +y a b ask\ns +x a b allow\n", True, id="two-arguments"
        ),
        pytest.param(
            "s +x a b allow\ns * a b ask\n", "s * a b ask\ns +x a b allow\n", False, id="every-argument"
        ),
        pytest.param(
            "s * a b ask\ns * @anyvm c ask\n", "s * @anyvm c ask\ns * a b ask\n", True, id="one-action"
        ),
        pytest.param("s * a b ask\n* * a b ask\n", "s * a b ask\n", True, id="said-twice"),
        pytest.param("s * a b ask\ns * @anyvm @anyvm deny\n", "s * a b ask\n", True, id="denied-anyway"),
        pytest.param("s * a b deny notify=no\n", "", False, id="denied-quietly"),
        pytest.param("s * a b deny\ns * * * ask\n", "s * * * ask\n", False, id="denied-before"),
        pytest.param("t * a b deny\ns * * * ask\n", "s * * * ask\nt * a b ask\n", True, id="another-service"),
    ],
)
def test_same(before: str, after: str, want: bool) -> None:
    first, second = (strategies.policy_of(text).rules for text in (before, after))
    assert same("s", first, second) is want
