"""What covers a rule matches whatever it matches: over drawn expressions, fields and worlds."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine import DelegationRule, Policy, Request, World, decide
from policy_engine.cover import covers
from tests.policy_engine.delegated import policy_of
from tests.policy_engine.strategies_dialect import DEFINED, Line, lines, requests, worlds

HEAD = "".join(f"!define {name} ({expression})\n" for name, expression in DEFINED.items())


@given(st.lists(lines, min_size=6, max_size=10), worlds, requests)
def test_a_rule_that_is_covered_decides_nothing(
    drawn: list[Line], world: World, requests: list[Request]
) -> None:
    policy = policy_of(HEAD + "".join(f"{' '.join(words)} {action}\n" for words, action in drawn))
    for first, second in combinations(policy.rules, 2):
        assert isinstance(first, DelegationRule)
        assert isinstance(second, DelegationRule)
        if covers(first.reach, second.reach):
            both = Policy((first, second), catalogue=policy.catalogue)
            for request in requests:
                assert decide(both, request, world).rule is not second


@pytest.mark.parametrize(
    ("wide", "narrow", "want"),
    [
        pytest.param("* * * *", "x +a a b", True, id="everything"),
        pytest.param("x * a b", "x * a b", True, id="the-same"),
        pytest.param("x|y * a b", "y * a b", True, id="one-of-the-services"),
        pytest.param("@read * a b", "admin.vm.List * a b", True, id="a-set"),
        pytest.param("@read * a b", "@write * a b", False, id="another-set"),
        pytest.param("admin.* * a b", "admin.vm.* * a b", True, id="globs"),
        pytest.param("* * a b", "admin.vm.* * a b", False, id="guarded"),
        pytest.param("x +a* a b", "x +ab|+ac* a b", True, id="arguments"),
        pytest.param("x +a a b", "x +a* a b", False, id="argument-glob"),
        pytest.param("x * a b", "x @tag:t a b", True, id="any-argument"),
        pytest.param("x @tag:t|b a b", "x @tag:t,c|b a b", True, id="argument-qubes"),
        pytest.param("x +a a b", "x @tag:t a b", False, id="text-and-qubes"),
        pytest.param("x @tag:t a b", "x +a a b", False, id="qubes-and-text"),
        pytest.param("x * @anyvm @anyvm", "x * a|!@tag:t @dispvm:x", True, id="any-qube"),
        pytest.param("x * @anyvm b", "x * dom0 b", False, id="any-but-dom0"),
        pytest.param("x * !@tag:t b", "x * !@tag:t|@tag:u,!@tag:t b", True, id="not"),
        pytest.param("x * !@tag:t b", "x * !a b", False, id="another-not"),
        pytest.param("x * !a b", "x * !@anyvm b", True, id="not-more"),
        pytest.param("x * !@anyvm b", "x * !a b", False, id="not-less"),
        pytest.param("x * !@tag:t,@tag:u b", "x * !@tag:t b", False, id="one-of-two"),
        pytest.param("x * a @tag:by-{source}", "x * a @tag:by-{source},c", True, id="of-the-caller"),
    ],
)
def test_covers(wide: str, narrow: str, want: bool) -> None:
    first, second = policy_of(f"{wide} deny\n{narrow} deny\n").rules
    assert isinstance(first, DelegationRule)
    assert isinstance(second, DelegationRule)
    assert covers(first.reach, second.reach) is want
