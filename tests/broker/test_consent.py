"""Which yes counts for which call, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.consent import LIFETIME, MAX_KEPT, Consents, Wish, digest_of
from policy_engine import AnyRule, Policy
from policy_engine.delegation import EVERYTHING, DelegationRule
from policy_engine.model import AnyQube, Ask, Rule

STOCK = Rule("a.B", "*", AnyQube(), AnyQube(), Ask(), "10.policy", 1)
ONCE = DelegationRule("", EVERYTHING, Ask(), "20.policy", 1)
HOUR = replace(ONCE, line=2, remember=3_600)
RULES: tuple[AnyRule, ...] = (STOCK, ONCE, HOUR)
POLICIES = tuple(Policy(RULES, (), (), digest) for digest in "ab")
WISH = Wish("alice-id", "work-id", "a.B", "x", digest_of(b"payload"), (("net", "net-id"),))
OTHERS = (
    WISH._replace(caller="bob-id"),
    WISH._replace(target="work2-id"),
    WISH._replace(service="a.C"),
    WISH._replace(argument=""),
    WISH._replace(digest=digest_of(b"")),
    WISH._replace(touched=(("net", "net2-id"),)),
    WISH._replace(touched=()),
)


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("rule", "later", "want"),
    [
        pytest.param(STOCK, 0, [True, False], id="stock-once"),
        pytest.param(ONCE, LIFETIME - 1, [True, False], id="once-in-time"),
        pytest.param(ONCE, LIFETIME, [False, False], id="too-late"),
        pytest.param(HOUR, 3_599, [True, True], id="remembered"),
        pytest.param(HOUR, 3_600, [False, False], id="forgotten"),
    ],
)
def test_use(clock: Clock, rule: AnyRule, later: float, want: list[bool]) -> None:
    consents = Consents(clock)
    consents.give(WISH, POLICIES[0], rule)
    clock.now += later
    assert [consents.use(WISH, POLICIES[0], rule) for _ in want] == want


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("rule", [ONCE, HOUR], ids=["once", "remembered"])
def test_another_wish_has_no_part_in_it(clock: Clock, other: Wish, rule: AnyRule) -> None:
    consents = Consents(clock)
    consents.give(WISH, POLICIES[0], rule)
    assert not consents.use(other, POLICIES[0], rule)
    assert not consents.covers(other, POLICIES[0], rule)
    assert consents.use(WISH, POLICIES[0], rule)


def test_another_policy_ends_it_for_good(clock: Clock) -> None:
    consents = Consents(clock)
    consents.give(WISH, POLICIES[0], HOUR)
    assert not consents.use(WISH, POLICIES[1], HOUR)
    assert not consents.use(WISH, POLICIES[0], HOUR)


def test_another_rule_is_another_question(clock: Clock) -> None:
    consents = Consents(clock)
    consents.give(WISH, POLICIES[0], ONCE)
    assert not consents.use(WISH, POLICIES[0], replace(ONCE, line=3))


def test_only_what_is_remembered_spares_a_question(clock: Clock) -> None:
    consents = Consents(clock)
    consents.give(WISH, POLICIES[0], ONCE)
    assert not consents.covers(WISH, POLICIES[0], ONCE)
    consents.give(WISH, POLICIES[0], HOUR)
    assert consents.covers(WISH, POLICIES[0], HOUR)


def test_what_is_withdrawn_is_not_used(clock: Clock) -> None:
    consents = Consents(clock)
    first = consents.give(WISH, POLICIES[0], ONCE)
    consents.give(WISH, POLICIES[0], ONCE)
    consents.withdraw(WISH, first)
    assert [consents.use(WISH, POLICIES[0], ONCE) for _ in range(2)] == [True, False]


def test_what_is_remembered_is_withdrawn_where_it_was_not_used_at_once(clock: Clock) -> None:
    consents = Consents(clock)
    unused = consents.give(WISH, POLICIES[0], HOUR)
    consents.withdraw(WISH, unused)
    assert not consents.covers(WISH, POLICIES[0], HOUR)
    used = consents.give(WISH, POLICIES[0], HOUR)
    assert consents.use(WISH, POLICIES[0], HOUR)
    consents.withdraw(WISH, used)
    assert consents.covers(WISH, POLICIES[0], HOUR)


def test_a_caller_keeps_so_many_and_takes_nothing_from_others(clock: Clock) -> None:
    consents = Consents(clock)
    consents.give(OTHERS[0], POLICIES[0], ONCE)
    for number in range(MAX_KEPT + 1):
        consents.give(WISH._replace(argument=str(number)), POLICIES[0], ONCE)
    assert not consents.use(WISH._replace(argument="0"), POLICIES[0], ONCE)
    assert consents.use(WISH._replace(argument="1"), POLICIES[0], ONCE)
    assert consents.use(OTHERS[0], POLICIES[0], ONCE)


Step = tuple[str, int, int, int]
STEPS = st.tuples(
    st.sampled_from(["give", "use", "wait"]),
    st.integers(0, 2),
    st.integers(0, len(POLICIES) - 1),
    st.integers(0, len(RULES) - 1),
)


@given(st.lists(STEPS, max_size=40))
def test_there_is_a_yes_for_every_use(steps: list[Step]) -> None:
    """Of what is not remembered there are never more uses than yeses, wish by wish; a remembered one is used
    under its own policy within its time."""
    clock = Clock()
    consents = Consents(clock)
    wishes = (WISH, *OTHERS[:2])
    given_once: dict[tuple[int, int, int], int] = {}
    leases: dict[tuple[int, int], float] = {}
    for what, wish, policy, rule in steps:
        key = (wish, policy, rule)
        if what == "wait":
            clock.now += (10.0, 61.0, 3_600.0)[rule]
        elif what == "give":
            consents.give(wishes[wish], POLICIES[policy], RULES[rule])
            if cast(object, RULES[rule]) is HOUR:
                leases[wish, policy] = clock.now + 3_600
            else:
                given_once[key] = given_once.get(key, 0) + 1
        elif consents.use(wishes[wish], POLICIES[policy], RULES[rule]):
            if RULES[rule] is HOUR:
                assert leases[wish, policy] > clock.now
            else:
                given_once[key] -= 1
                assert given_once[key] >= 0
