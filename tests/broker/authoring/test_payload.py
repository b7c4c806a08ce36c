"""``qubes-policy explain --value``: what a rule of the dialect says to a payload, and how much there may
be."""

from __future__ import annotations

import json

import pytest

from tests.broker.authoring.typing_rig import Desk, fixture_desk

__all__ = ["fixture_desk"]

POLICY = """\
!dialect delegation-1
!limit mgmt qubes=3 memory=6GiB storage=1536MiB
admin.vm.property.Set +memory mgmt work allow value=256..4096
admin.vm.property.Set +netvm mgmt work allow value=(vault|none)
admin.vm.Create.AppVM * mgmt dom0 allow value=(name=web* label=red|green)
admin.vm.Start * mgmt work allow
"""


def explained(desk: Desk, called: str, target: str, *values: str) -> tuple[int, str, str]:
    desk.write(**{"_30-user": POLICY})
    words = [word for value in values for word in ("--value", value)]
    return desk.types("", "explain", "mgmt", called, target, f"--system-info={desk.root}/system", *words)


@pytest.mark.parametrize(
    ("called", "values", "said"),
    [
        pytest.param("admin.vm.property.Set+memory", ["512"], "allow", id="number"),
        pytest.param("admin.vm.property.Set+memory", ["8192"], "deny", id="number-too-large"),
        pytest.param("admin.vm.property.Set+netvm", ["vault"], "allow", id="qube"),
        pytest.param("admin.vm.property.Set+netvm", ["work"], "deny", id="another-qube"),
        pytest.param("admin.vm.property.Set+netvm", [""], "allow", id="none"),
        pytest.param("admin.vm.Create.AppVM+tmpl", ["name=web1", "label=red"], "allow", id="keys"),
        pytest.param("admin.vm.Create.AppVM+tmpl", ["name=web1"], "deny", id="a-key-is-missing"),
    ],
)
def test_the_rule_looks_at_the_payload(desk: Desk, called: str, values: list[str], said: str) -> None:
    target = "dom0" if "Create" in called else "work"
    status, out, err = explained(desk, called, target, *values)
    assert (status, err) == (0, "")
    assert out.startswith(said)
    assert ("the payload is not what the rule asks for" in out) == (said == "deny")
    limit = "Of what it creates, mgmt may have qubes=3 memory=6GiB storage=1536MiB.\n"
    assert out.endswith(limit) == (said == "allow")


@pytest.mark.parametrize(
    ("called", "values", "said"),
    [
        pytest.param("admin.vm.property.Set+memory", ["much"], "a whole number of MiB, found", id="kind"),
        pytest.param("admin.vm.property.Set+memory", ["1", "2"], "is one value, found 2", id="two"),
        pytest.param("admin.vm.Start", ["x"], "no rule can look at its payload", id="no-payload"),
    ],
)
def test_what_is_no_payload_is_told(desk: Desk, called: str, values: list[str], said: str) -> None:
    status, _, err = explained(desk, called, "work", *values)
    assert status == 2
    assert said in err


def test_the_keys_of_a_payload_are_told(desk: Desk) -> None:
    status, _, err = explained(desk, "admin.vm.Create.AppVM+tmpl", "dom0", "colour=red")
    assert status == 2
    assert "expected KEY=VALUE with one of name, label" in err


def test_limits_for_programs(desk: Desk) -> None:
    desk.write(**{"_30-user": POLICY})
    system = f"--system-info={desk.root}/system"
    _, out, _ = desk.types("", "explain", "mgmt", "admin.vm.Start", "work", "--json", system)
    assert json.loads(out)["limits"] == {
        "qubes": 3,
        "running": None,
        "memory": 6 * 2**30,
        "storage": 3 * 2**29,
    }
