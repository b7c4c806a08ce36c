"""The shipped role of an operator, on a real daemon: each of its rules used by two operators, once where it
allows and once where it refuses."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from broker.catalogue import catalogue
from broker.client import CallError, call, events
from policy_engine import DirectorySource, format_rule, load
from tests.broker.policy_rig import exchange
from tests.broker.rig import ROOT, Daemon, serving

OPERATORS = ("ann", "ben")
TEAM = "!dialect delegation-1\nqubes.Filecopy * @tag:team-a * allow\n"
CREATE, SET = "admin.vm.Create.AppVM", "admin.vm.property.Set"


@dataclass(frozen=True)
class Use:
    """A call; ``{me}`` and ``{other}`` stand for two operators in its texts."""

    service: str
    target: str = "dom0"
    payload: str = ""

    def by(self, me: str, daemon: Daemon) -> bytes:
        other = next(name for name in OPERATORS if name != me)
        service, target, payload = (
            text.replace("{me}", me).replace("{other}", other)
            for text in (self.service, self.target, self.payload)
        )
        name, _, argument = service.partition("+")
        return call(daemon.channel(me), name, target, argument, payload.encode())


@pytest.fixture(name="daemon", params=["stock", "strict"])
def fixture_daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    policy = tmp_path / "etc/qubes/policy.d"
    shutil.copytree(ROOT / "policy.d", policy, ignore=shutil.ignore_patterns("demo"))
    shutil.copy(policy / "examples/30-operator.policy", policy)
    (policy / "include/team-a").write_text(TEAM)
    with serving(tmp_path, "", f'visibility = "{request.param}"\n') as daemon:
        furnish(daemon)
        yield daemon


def furnish(daemon: Daemon) -> None:
    """``ann`` and ``ben``, each with a qube that it made, one that dom0 gave it, and one that both got."""
    daemon.create("tpl", "private-tpl", klass="TemplateVM", tags={"tpl": "shared-tpl"})
    daemon.create("sys-net", "sys-lab", tags={"sys-net": "shared-net"})
    for net in ("sys-net", "sys-lab"):
        call(daemon.socket, SET, net, "provides_network", b"True")
    daemon.create(*OPERATORS, "vault", tags=dict.fromkeys(OPERATORS, "operator"))
    daemon.create("both", "wiki", tags={"both": "managed-by-ann", "wiki": "team-a"})
    call(daemon.socket, "admin.vm.tag.Set", "both", "managed-by-ben")
    for name in OPERATORS:
        call(daemon.socket, "admin.vm.tag.Set", name, "team-a")
        daemon.create(f"{name}-given", tags={f"{name}-given": f"managed-by-{name}"})
        Use(f"{CREATE}+tpl", payload="name={me}_made label=red").by(name, daemon)


RULES = [
    pytest.param(
        "admin.vm.List|admin.Events|admin.vm.Stats * @tag:operator @adminvm|@mine allow",
        Use("admin.vm.List", "{me}-given"),
        Use("admin.vm.List", "{other}-given"),
        id="list",
    ),
    pytest.param(
        "admin.label.List|admin.label.Get * @tag:operator @adminvm allow",
        Use("admin.label.Get+red"),
        Use("admin.label.Index+red"),
        id="labels",
    ),
    pytest.param(
        "@read:local * @tag:operator @mine allow",
        Use("admin.vm.property.GetAll", "{me}_made"),
        Use("admin.vm.property.GetAll", "{other}_made"),
        id="read",
    ),
    pytest.param(
        "@execute:local * @tag:operator @mine allow",
        Use("admin.vm.Start", "{me}_made"),
        Use("admin.vm.Start", "{other}_made"),
        id="execute",
    ),
    pytest.param(
        "admin.vm.property.Set +netvm @tag:operator @mine allow value=(@tag:shared-net|none)",
        Use(f"{SET}+netvm", "{me}-given", "sys-net"),
        Use(f"{SET}+netvm", "{me}-given", "sys-lab"),
        id="netvm",
    ),
    pytest.param(
        "admin.vm.property.Set +memory|+maxmem @tag:operator @mine allow value=256..4096",
        Use(f"{SET}+memory", "both", "512"),
        Use(f"{SET}+memory", "both", "8192"),
        id="memory",
    ),
    pytest.param(
        "admin.vm.property.Set +label @tag:operator @mine allow",
        Use(f"{SET}+label", "both", "blue"),
        Use(f"{SET}+label", "{other}_made", "blue"),
        id="label",
    ),
    pytest.param(
        "admin.vm.tag.Set +backup @tag:operator @mine allow",
        Use("admin.vm.tag.Set+backup", "{me}_made"),
        Use("admin.vm.tag.Set+managed-by-{other}", "{me}_made"),
        id="tag",
    ),
    pytest.param(
        "admin.vm.Create.AppVM @tag:shared-tpl @tag:operator @adminvm allow "
        "value=(name={source}_* label=red|green)",
        Use(f"{CREATE}+tpl", payload="name={me}_new label=green"),
        Use(f"{CREATE}+tpl", payload="name={other}_new2 label=green"),
        id="create",
    ),
    pytest.param(
        "admin.vm.Remove * @tag:operator @mine allow",
        Use("admin.vm.Remove", "{me}_made"),
        Use("admin.vm.Remove", "{other}_made"),
        id="remove",
    ),
]


@pytest.mark.parametrize(("rule", "granted", "refused"), RULES)
def test_what_a_rule_allows_and_what_it_does_not(
    daemon: Daemon, rule: str, granted: Use, refused: Use
) -> None:
    for name in OPERATORS:
        granted.by(name, daemon)
        with pytest.raises(CallError, match="denied by policy, record") as error:
            refused.by(name, daemon)
        assert error.value.refused


def test_these_are_all_its_rules(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "policy.d/include", tmp_path / "include")
    shutil.copy(ROOT / "policy.d/examples/30-operator.policy", tmp_path)
    policy = load(DirectorySource(), (str(tmp_path),), catalogue=partial(catalogue, enforced=True))
    rules = [format_rule(rule) for rule in policy.rules]
    assert rules[:-1] == [parameters.values[0] for parameters in RULES]
    assert rules[-1] == "* * @tag:team-a @tag:team-a !include include/team-a"


@pytest.mark.parametrize(
    ("payload", "argument"),
    [
        pytest.param("name={me}_x label=black", "+tpl", id="label"),
        pytest.param("name={me}x label=red", "+tpl", id="name-without-its-mark"),
        pytest.param("name={me}_x label=red", "+private-tpl", id="template"),
        pytest.param("name={me}_x label=red", "+no-such-qube", id="template-that-is-not-there"),
        pytest.param("name={me}_x label=red", "", id="default-template"),
    ],
)
def test_what_else_a_new_qube_may_not_be(daemon: Daemon, payload: str, argument: str) -> None:
    for name in OPERATORS:
        with pytest.raises(CallError, match="denied by policy, record"):
            Use(f"{CREATE}{argument}", payload=payload).by(name, daemon)


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("dom0", id="dom0"),
        pytest.param("sys-net", id="shared"),
        pytest.param("{other}_made", id="another-operators"),
        pytest.param("no-such-qube", id="nobodys"),
    ],
)
def test_no_device_of_somebody_else_is_attached(daemon: Daemon, backend: str) -> None:
    for name in OPERATORS:
        with pytest.raises(CallError, match="denied by policy, record"):
            Use(f"admin.vm.device.block.Attach+{backend}+sda", "{me}_made").by(name, daemon)


def test_each_hears_of_its_own(daemon: Daemon) -> None:
    streams = {name: events(daemon.channel(name), timeout=60) for name in OPERATORS}
    for stream in streams.values():
        assert next(stream).name == "connection-established"
    for name in OPERATORS:
        call(daemon.socket, "admin.vm.feature.Set", f"{name}-given", "told", b"1")
    call(daemon.socket, "admin.vm.feature.Set", "both", "end", b"1")
    for name, stream in streams.items():
        heard = [(event.subject, event.name) for event in islice(stream, 4)]
        assert heard == [
            (subject, f"domain-feature-{what}:{feature}")
            for subject, feature in ((f"{name}-given", "told"), ("both", "end"))
            for what in ("pre-set", "set")
        ]


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        pytest.param("wiki", b"result=allow\n", id="within"),
        pytest.param("vault", b"result=deny\n", id="beyond"),
    ],
)
def test_the_teams_own_rules_hold_within_their_frame(daemon: Daemon, target: str, answer: bytes) -> None:
    for name in OPERATORS:
        question = f"policy.EvalSimple+qubes.Filecopy anybody\0{name}\0{target}".encode("ascii")
        place = daemon.root / "etc/qubes-rpc/policy.EvalSimple"
        assert asyncio.run(exchange(place, question, end=True)) == answer


def test_limits_hold_for_each_operator_by_itself(daemon: Daemon) -> None:
    """And the figures are told to the owner alone."""
    for name in OPERATORS:
        for number in range(9):
            Use(f"{CREATE}+tpl", payload=f"name={{me}}_n{number} label=red").by(name, daemon)
        with pytest.raises(CallError, match="a limit is reached; qubes: 10 of 10"):
            Use(f"{CREATE}+tpl", payload="name={me}_more label=red").by(name, daemon)
        for number in range(4):
            Use("admin.vm.Start", f"{{me}}_n{number}").by(name, daemon)
        with pytest.raises(CallError, match="a limit is reached; running: 4 of 4"):
            Use("admin.vm.Start", "{me}_made").by(name, daemon)
    call(daemon.socket, "admin.vm.tag.Set", "ann_made", "managed-by-ben")
    with pytest.raises(CallError, match=r"denied by policy, record \d+$"):
        Use("admin.vm.Start", "{other}_made").by("ben", daemon)
