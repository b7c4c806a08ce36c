"""What whoever writes a framed file, or calls a qube or a service by a strange name, cannot do."""

from __future__ import annotations

import pytest

from policy_engine import Policy, QubeFacts, Request, World, decide, hidden
from tests.policy_engine.delegated import DIALECT, loader, policy_of
from tests.policy_engine.strategies import kind

WORLD = World.of(
    [
        QubeFacts("dom0", "00000000-0000-0000-0000-000000000000", "AdminVM"),
        QubeFacts("a", "a-id", "AppVM", frozenset({"t"}), template="tpl", label_name="red"),
        QubeFacts("a_b", "ab-id", "AppVM", frozenset({"x-a_b", "x-a"})),
        QubeFacts("b.c", "bc-id", "AppVM"),
        QubeFacts("tpl", "tpl-id", "TemplateVM", template_for_dispvms=True, label_name="black"),
    ]
)


def test_a_service_that_is_called_like_a_part_of_the_index_is_a_service() -> None:
    policy = policy_of("qubes.* * * * allow\nadmin.* * * * allow\n")
    for service in ("qubes.x", "admin.x", "other"):
        decide(policy, Request(service, "+", "a", "b.c"), WORLD)
    for service in (" qubes.*", "admin. admin.**", " *", "*", "", "admin. *"):
        answer = decide(policy, Request(service, "+", "a", "b.c"), WORLD)
        assert kind(answer) == ("allowed" if service.startswith("admin.") else "no-rule")


def test_endless_calls_add_nothing_to_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy_engine.policy.MAX_INDEXED", 20_000)
    names = "|".join(f"s{number}" for number in range(1_000))
    arguments = "|".join(f"+a{number}" for number in range(600))
    policy = policy_of(f"{names} {arguments} a|b.c * allow\n" + "s*|t* +a*|* * * deny\n" * 30)
    for number in range(500):
        service, argument = f"s{number % 90}", f"+a{number % 700}"
        decide(policy, Request(service, argument, f"gone{number}", "a"), WORLD)
        decide(policy, Request(f"t{number}", argument, "a", "a"), WORLD)
    assert _indexed(policy) <= 20_000 + 1_000
    assert kind(decide(policy, Request("s1", "+a1", "a", "a_b"), WORLD)) == "allowed"


def _indexed(policy: Policy) -> int:
    """The rules that its index holds."""
    services = [*policy._services.values(), *policy._others.values()]
    groups = [group for service in services for group in service.groups.values()]
    held = sum(
        len(group.positions) + sum(len(plan.rules) for plan in set(group.plans.values())) for group in groups
    )
    return held + sum(service.size for service in services)


HOSTILE = {
    "services": "|".join(f"s{number}" for number in range(1_300)) + " * * * allow\n",
    "globs": "|".join(f"s{number}*" for number in range(1_100)) + " * * * allow\n",
    "arguments": "* " + "|".join(f"+a{number}" for number in range(1_100)) + " * * allow\n",
    "atoms": "* * * " + "|".join(f"x{number}" for number in range(900)) + ",* allow\n",
    "sets": "@read|@write|@execute * * * deny\n",
    "values": "admin.vm.property.Set +label * * allow value="
    + "|".join(f"x{number}" for number in range(1_000))
    + "\n",
    "rules": "* +x * {source}_x,!@tag:t allow\n",
    "braces": "* * * allow value=" + "(" * 8_000 + "\n",
    "words": "a " * 8_000 + "\n",
}


@pytest.mark.parametrize("line", [pytest.param(HOSTILE[name], id=name) for name in HOSTILE])
def test_a_hostile_framed_file_costs_little(line: str) -> None:
    """Counted in work, not in time: the bounds leave less than some ten thousand things to look at."""
    text = (DIALECT + "* * * * deny\nadmin.* * * * deny\n" + line * 5_000)[: 64 * 1024]
    files = {"1.policy": f"{DIALECT}*|admin.* * * * !include include/x\n", "include/x": text}
    policy = loader(files).load()
    assert len(policy.rules) <= 500
    assert hidden(policy, WORLD, "a", "b.c")
