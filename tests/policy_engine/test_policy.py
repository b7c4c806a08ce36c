"""The index: what a decision looks at, and what hostile callers and large policies can make of it."""

from policy_engine import Denied, MemorySource, Policy, QubeFacts, Request, World, decide, load, visible
from policy_engine.load import CONFIGURED, RUNTIME
from policy_engine.policy import MAX_INDEXED
from tests.policy_engine.catalogue import carried_out
from tests.policy_engine.stock import stock
from tests.policy_engine.strategies import kind, policy_of

QUBES = World.of([QubeFacts(f"q{number:04}", None, "AppVM") for number in range(600)])


def keys_of(name: str) -> frozenset[str]:
    resident = QUBES.resident(name)
    assert resident is not None
    return resident.keys


CALLER = keys_of("q0001")


def test_only_rules_that_can_match_are_looked_at() -> None:
    policy = policy_of(
        "".join(f"s.{number} * q{number % 50:04} * deny\n" for number in range(5_000))
        + "* * @tag:t * allow\n"
    )
    assert [rule.service for rule in stock(policy.plan("s.1", "+", CALLER).rules)] == ["s.1"]
    assert policy.plan("s.2", "+", CALLER).rules == []
    assert policy.plan("other", "+x", CALLER).rules == []


def test_endless_services_and_arguments_share_what_the_policy_names() -> None:
    policy = policy_of("s.A +x * * deny\ns.A * * * allow\n* * * @adminvm deny")
    assert policy.plan("s.A", "+1", CALLER) is policy.plan("s.A", "+2", CALLER)
    assert policy.plan("x.1", "+1", CALLER) is policy.plan("x.2", "+2", CALLER)
    assert policy.plan("s.A", "+x", CALLER) is not policy.plan("s.A", "+y", CALLER)
    assert len(policy.plan("s.A", "+x", CALLER).rules) == 3
    assert len(policy.plan("x.1", "+x", CALLER).rules) == 1


def test_what_was_called_before_does_not_change_what_is_found() -> None:
    text = "s.A +x * * deny\ns.B * * * deny\ns.A * * * allow\n* * * @adminvm deny\ns.A +y * * deny"
    calls = [("s.A", "+x"), ("s.A", "+y"), ("s.A", "+z"), ("s.A", "*"), ("s.B", "+x"), ("x", "+"), ("*", "*")]
    alone = [[rule.line for rule in policy_of(text).plan(*call, CALLER).rules] for call in calls]
    assert alone == [[1, 3, 4], [3, 4, 5], [3, 4], [3, 4], [2, 4], [4], [4]]
    policy = policy_of(text)
    for order in (calls, calls[::-1]):
        found = {call: [rule.line for rule in policy.plan(*call, CALLER).rules] for call in order}
        assert [found[call] for call in calls] == alone


def test_callers_that_match_the_same_rules_share_them() -> None:
    policy = policy_of("s.A * @anyvm * deny\ns.A * q0002 * deny")
    other, named = keys_of("q0003"), keys_of("q0002")
    assert policy.plan("s.A", "+", CALLER) is policy.plan("s.A", "+", other)
    assert policy.plan("s.A", "+", CALLER) is not policy.plan("s.A", "+", named)


def test_an_index_that_is_full_is_made_anew_and_answers_the_same() -> None:
    wide = 1_000
    lines = [f"s.A * * q{number % 600:04}x deny\n" for number in range(wide)]
    policy = policy_of("".join(lines) + "".join(f"s.A * {name} {name} allow\n" for name in QUBES.names))
    first = policy.plan("s.A", "+", CALLER)
    assert len(QUBES) * wide > MAX_INDEXED
    for name in QUBES.names:
        assert kind(decide(policy, Request.of("s.A", name, name), QUBES)) == "allowed"
        assert kind(decide(policy, Request.of("s.A", name, "q0000"), QUBES)) == (
            "allowed" if name == "q0000" else "no-rule"
        )
    again = policy.plan("s.A", "+", CALLER)
    assert again is not first
    assert again.rules == first.rules


def test_a_policy_of_nothing_denies_everything() -> None:
    policy = Policy([])
    assert decide(policy, Request.of("s", "q0001", "q0002"), QUBES) == Denied("no-rule", True)
    assert visible(policy, QUBES, "q0001", "s") == []
    assert visible(policy, World.of([]), "q0001", "s") == []


def test_names_in_turn_keep_their_order_against_sets() -> None:
    policy = policy_of(
        "s * * q0001 allow\n"
        "s * * q0002 deny\n"
        "s * * q0003 allow\n"
        "s * * @type:AppVM deny\n"
        "s * * q0004 allow\n"
        "s * * * allow\n"
    )
    assert visible(policy, QUBES, "q0000", "s") == ["q0001", "q0003"]
    assert len(policy.plan("s", "+", CALLER).effects()) == 3


def test_what_globs_share_is_no_service_of_its_own() -> None:
    text = b"!dialect delegation-1\nwork.* * * * allow\nadmin.vm.* * * * deny\n"
    policy = load(MemorySource({f"{CONFIGURED}/30.policy": text}, [RUNTIME]), catalogue=carried_out)
    asked = ("work.Run", "work.*", " work.*", "work", "admin.vm.*", "admin. admin.vm.*", "admin.work.*", "*")
    found = {service: [rule.line for rule in policy.plan(service, "+", CALLER).rules] for service in asked}
    assert found == {
        service: [2] * service.startswith("work.") + [3] * service.startswith("admin.vm.")
        for service in asked
    }
