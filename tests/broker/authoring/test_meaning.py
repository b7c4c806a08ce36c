"""What a change means, in lines; and whom it locks out."""

from __future__ import annotations

import pytest

from broker.authoring.lockout import lockouts
from broker.authoring.meaning import MOST_LINES, amounts, listed, meaning
from broker.colour import Colours
from policy_engine import Allowance, Policy, QubeFacts, World
from policy_engine.impact import Impact, Turn, Verdict, impact
from tests.policy_engine.catalogue import CATALOGUE
from tests.policy_engine.test_impact import policy

PLAIN = Colours(False)
TOKENS = tuple(f"t{number}" for number in range(10))
DIALECT = "!dialect delegation-1\n"
WORLD = World.of(
    [QubeFacts(name, None, "AdminVM" if name == "dom0" else "AppVM") for name in ("dom0", "a", "b")]
)
GRANT = "admin.vm.Start * a b allow target=dom0\n"


def lines(*turns: Turn, whole: bool = True) -> list[str]:
    return list(meaning(Impact(turns, TOKENS, (), whole), PLAIN))


@pytest.mark.parametrize(
    ("before", "after", "head"),
    [
        pytest.param("deny", "allow", "a may now call:", id="granted"),
        pytest.param("deny", "ask", "a may now call, if the user agrees:", id="asked"),
        pytest.param("ask", "allow", "a may now call without asking the user:", id="not-asked"),
        pytest.param("allow", "ask", "a may now call only if the user agrees:", id="asked-now"),
        pytest.param("allow", "deny", "a may no longer call:", id="taken-away"),
        pytest.param("ask", "deny", "a may no longer call, nor ask the user:", id="not-even-asked"),
        pytest.param(
            "allow",
            "allow",
            "a may call as before, but to another place or user, or with another payload:",
            id="otherwise",
        ),
    ],
)
def test_each_turn_has_its_words(before: Verdict, after: Verdict, head: str) -> None:
    assert lines(Turn("a", "s", "+x", before, after, 0b10)) == [head, "  s+x on t1"]


def test_what_is_alike_is_told_together() -> None:
    turns = [
        Turn(source, service, "+", "deny", "allow", 0b1100) for source in ("a", "b") for service in ("*", "s")
    ]
    assert lines(*turns) == ["a and b may now call:", "  any other service and s on t2 and t3"]
    many = Turn("a", "s", "+", "deny", "allow", 0b1111111110)
    assert lines(many)[1] == "  s on t1, t2, t3, t4, t5 and 4 others"


def test_nothing_is_told_as_nothing() -> None:
    assert lines() == ["It means the same: no call of a qube that is there is answered otherwise."]
    assert lines(whole=False) == ["It speaks of more calls than were compared: there may be more of this."]


def test_there_is_a_bound_of_lines() -> None:
    turns = [Turn("a", f"s{number:03}", "+", "deny", "allow", number) for number in range(1, 101)]
    found = lines(*turns)
    assert len(found) == MOST_LINES + 1
    assert found[-1] == f"  ... and {101 - MOST_LINES} lines more"


def test_allowances_are_told_by_what_changes() -> None:
    before, after = Allowance(qubes=1, memory=1 << 30), Allowance(qubes=2, memory=1 << 30, storage=3 << 20)
    found = list(meaning(Impact((), TOKENS, (("a", before, after),), True), PLAIN))
    assert found == ["a may have qubes=2 storage=3MiB; it was qubes=1 storage=any"]
    assert amounts(after) == "qubes=2 memory=1GiB storage=3MiB"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        pytest.param(["a"], "a", id="one"),
        pytest.param(["a", "b", "c"], "a, b and c", id="three"),
        pytest.param(list("abcdefgh"), "a, b, c, d, e and 3 others", id="many"),
    ],
)
def test_lists(names: list[str], text: str) -> None:
    assert listed(names) == text


def warned(before: str, after: str) -> list[str]:
    old, new = policy(before), policy(after)
    found = impact(old, new, WORLD, CATALOGUE)
    return list(lockouts(old, new, WORLD, found, CATALOGUE, {"a": "ann"}))


@pytest.mark.parametrize(
    ("before", "after", "want"),
    [
        pytest.param(GRANT, GRANT + "admin.vm.List * a dom0 allow target=dom0\n", [], id="more"),
        pytest.param(
            GRANT,
            "* * * * deny\n" + GRANT,
            ["{place}:1: this denies every call before 1 rules", "{all}"],
            id="stock",
        ),
        pytest.param(
            GRANT,
            "* * @anyvm @anyvm deny\n" + GRANT,
            ["{place}:1: this denies every", "{all}"],
            id="all-qubes",
        ),
        pytest.param(
            DIALECT + GRANT.replace(" target=dom0", ""),
            f"{DIALECT}*|admin.*|policy.* * * * deny\n" + GRANT.replace(" target=dom0", ""),
            ["{place}:2: this denies every call", "{all}"],
            id="dialect",
        ),
        pytest.param("s * a b allow\n", "", [], id="not-of-the-admin-api"),
        pytest.param("s * a b allow\n", "s * a b allow\n* * * * deny\n", [], id="at-the-end-it-does-no-harm"),
        pytest.param(
            GRANT + "admin.vm.List * a dom0 allow\n", "admin.vm.List * a dom0 allow\n", [], id="some-left"
        ),
        pytest.param(
            "policy.List * a dom0 allow target=dom0\n",
            "",
            ["a (the user ann) may no longer call policy.List, by which policy is read and edited"],
            id="policy",
        ),
    ],
)
def test_who_is_locked_out(before: str, after: str, want: list[str]) -> None:
    found = warned(before, after)
    everything = "a (the user ann) may no longer call anything of the Admin API"
    assert len(found) == len(want)
    for one, begins in zip(found, want, strict=True):
        assert one.startswith(begins.format(place="/etc/qubes/policy.d/30.policy", all=everything))


def test_a_policy_without_rules_means_nothing() -> None:
    found = impact(Policy(()), Policy(()), WORLD, CATALOGUE)
    assert (found.turns, found.allowances, found.whole) == ((), (), True)
