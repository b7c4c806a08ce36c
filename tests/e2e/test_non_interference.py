"""The law of visibility, case by case: what a caller may not see is not there for it, to the byte.

``tools/interference`` holds two whole daemons against each other; every leak that it finds gets a case here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import call, connect, send_all
from broker.wire import EventReader, encode_call, encode_refusal
from qubesd.api.call import Call
from qubesd.api.method import Scope
from qubesd.api.table import METHODS
from qubesd.config import rooted
from tests.broker.rig import PATIENCE, Daemon, exchange, serving

STRICT = 'visibility = "strict"\n'
ON_DOM0 = ("admin.vm.List", "admin.vm.Stats", "admin.Events", "admin.vm.Create.AppVM")
ON_QUBES = ("admin.vm.List", "admin.vm.Stats", "admin.Events")
ON_DOM0 = (*ON_QUBES, "admin.vm.Create.AppVM")
STOCK = "".join(
    f"{name} * alice {target} allow target=dom0\n"
    for name, method in METHODS.items()
    for target, granted in (
        (
            "@tag:mine",
            method.scope is Scope.LOCAL or name in (*ON_QUBES, "admin.vm.CreateDisposable"),
        ),
        ("@adminvm", name in ON_DOM0 or name.startswith("admin.pool.volume.")),
        ("@default", name == "admin.vm.List"),
    )
    if granted
)
DELEGATED = """\
!dialect delegation-1
@read:local|@execute:local  *                alice  @tag:mine  allow
admin.vm.property.Set       +netvm           alice  @tag:mine  allow value=(@tag:shared-net|@tag:mine)
admin.vm.property.Set       +default_dispvm  alice  @tag:mine  allow value=(@tag:mine)
admin.vm.property.Set       +template        alice  @tag:mine  allow value=(@tag:shared-tpl)
@write:local                *                alice  @tag:mine  allow
admin.vm.CreateDisposable   *                alice  @tag:mine  allow
admin.vm.Create.AppVM       @tag:shared-tpl  alice  @adminvm   allow value=(name={source}_* label=red)
admin.vm.List|admin.vm.Stats|admin.Events  *  alice  @adminvm|@tag:mine  allow
admin.pool.volume.*         *                alice  @adminvm|@tag:mine  allow
"""
LANGUAGES = {"stock": (STOCK, STRICT), "dialect": (DELEGATED, "")}

SYSTEM = """\
admin.vm.Create.TemplateVM dom0 name=tmpl label=black
admin.property.Set+default_template dom0 tmpl
admin.vm.Create.AppVM dom0 name=net label=red
admin.vm.property.Set+provides_network net True
admin.vm.Create.AppVM dom0 name=alice label=red
admin.vm.Create.AppVM dom0 name=work label=red
admin.vm.property.Set+netvm work net
admin.vm.tag.Set+shared-tpl tmpl
admin.vm.tag.Set+shared-net net
admin.vm.tag.Set+mine work
"""
HIDDEN = """\
admin.vm.Create.AppVM dom0 name=secret-1 label=red
admin.vm.property.Set+provides_network secret-1 True
admin.vm.property.Set+template_for_dispvms secret-1 True
admin.vm.Create.TemplateVM dom0 name=secret-2 label=red
"""


def carry_out(daemon: Daemon, script: str) -> None:
    """Calls of dom0, one a line: SERVICE+ARGUMENT TARGET PAYLOAD."""
    for line in script.splitlines():
        method, target, *payload = line.split(" ", 2)
        service, _, argument = method.partition("+")
        call(daemon.socket, service, target, argument, "".join(payload).encode("ascii"))


def hers(
    daemon: Daemon, service: str, target: str = "dom0", argument: str = "", payload: bytes = b""
) -> bytes:
    """The answer to a call of alice."""
    return exchange(daemon.channel("alice"), encode_call(Call(service, argument, "dom0", target, payload)))


@pytest.fixture(scope="module", params=LANGUAGES)
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One that nothing is changed in; ``secret-1`` and ``secret-2`` are hidden from alice."""
    root = tmp_path_factory.mktemp(request.param)
    with serving(root, *LANGUAGES[request.param]) as served:
        carry_out(served, SYSTEM + HIDDEN + "admin.vm.Start work\nadmin.vm.Start secret-1")
        for backend in ("work", "secret-1"):
            place = rooted(root).run_dir / f"qubesdb/{backend}/qubes-block-devices/sda"
            place.mkdir()
            (place / "desc").write_text("disk")
        yield served


@pytest.mark.parametrize("target", ["secret-1", "nobody", "uuid", "a b", ""])
def test_hidden_and_absent_are_the_same_bytes(daemon: Daemon, target: str) -> None:
    """Though a rule may let calls through that name no qube: stock would tell the two apart there."""
    if target == "uuid":
        target = f"uuid:{daemon.channel('secret-1').stem}"
    reply = hers(daemon, "admin.vm.List", target)
    assert re.sub(rb"[0-9]+(?=\0$)", b"0", reply) == encode_refusal(0)


@pytest.mark.parametrize(
    ("service", "target", "argument", "payload"),
    [
        pytest.param("admin.vm.property.Set", "work", "netvm", b"%s", id="netvm"),
        pytest.param("admin.vm.property.Set", "work", "template", b"%s", id="template"),
        pytest.param("admin.vm.property.Set", "work", "default_dispvm", b"%s", id="default-dispvm"),
        pytest.param(
            "admin.vm.Create.AppVM", "dom0", "%s", b"name=alice_new label=red", id="template-of-a-new-one"
        ),
        pytest.param("admin.vm.property.Get", "%s", "label", b"", id="a-read"),
        pytest.param("admin.vm.CreateDisposable", "%s", "", b"", id="a-disposable"),
        pytest.param("admin.vm.device.block.Attach", "work", "%s+sda", b"", id="a-device"),
        pytest.param(
            "admin.vm.device.block.Assign", "work", "%s+sda", b"mode='auto-attach'", id="an-assignment"
        ),
        *(
            pytest.param(
                f"admin.pool.volume.{name}",
                "dom0",
                "varlibqubes",
                b"appvms/%s/private" + rest,
                id=f"pool-{name}",
            )
            for name, rest in (
                *((name, b"") for name in ("Info", "ListSnapshots", "Snapshot", "CloneFrom")),
                *(("Revert", b" 1"), ("Resize", b" 3221225472"), ("Set.revisions_to_keep", b" 1")),
                *(("CloneTo", b" none"), ("Import", b"\ndata")),
            )
        ),
        pytest.param("admin.vm.volume.CloneFrom", "%s", "private", b"", id="a-clone"),
    ],
)
def test_a_hidden_qube_is_named_in_vain(
    daemon: Daemon, service: str, target: str, argument: str, payload: bytes
) -> None:
    def named(name: str) -> bytes:
        words = (
            target.replace("%s", name),
            argument.replace("%s", name),
            payload.replace(b"%s", name.encode()),
        )
        reply = hers(daemon, service, *words)
        return re.sub(rb"record [0-9]+", b"record", reply).replace(name.encode(), b"NAME")

    hidden, absent = named("secret-1"), named("missing1")
    assert hidden == absent
    assert hidden.startswith(b"2\0")


@pytest.mark.parametrize(
    ("service", "target", "argument", "payload"),
    [
        pytest.param("admin.vm.property.Set", "work", "netvm", b"net", id="by-its-value"),
        pytest.param(
            "admin.vm.Create.AppVM", "dom0", "tmpl", b"name=alice_new label=red", id="by-its-argument"
        ),
    ],
)
def test_what_a_rule_selects_is_there_though_nothing_may_be_called_on_it(
    tmp_path: Path, service: str, target: str, argument: str, payload: bytes
) -> None:
    with serving(tmp_path, DELEGATED) as daemon:
        carry_out(daemon, SYSTEM)
        assert hers(daemon, service, target, argument, payload) == b"0\0"


@pytest.mark.parametrize("language", LANGUAGES)
def test_nobody_learns_from_statistics_what_else_runs(tmp_path: Path, language: str) -> None:
    """Two rounds on each of two daemons, one with a hidden qube that runs, are of the same qubes."""

    def subjects(hidden: str) -> list[str]:
        with serving(tmp_path / hidden, *LANGUAGES[language]) as daemon:
            carry_out(daemon, SYSTEM + "admin.property.Set+stats_interval dom0 1\nadmin.vm.Start work")
            if hidden:
                carry_out(daemon, HIDDEN + "admin.vm.Start secret-1")
            with connect(daemon.channel("alice"), PATIENCE) as stream:
                send_all(stream, encode_call(Call("admin.vm.Stats", "", "dom0", "dom0", b"")))
                reader = EventReader()
                told: list[str] = []
                while len(told) < 5:
                    told += [event.subject for event in reader.feed(stream.recv(65_536))]
                return told[:5]

    assert subjects("") == subjects("hidden") == ["", *("dom0", "work") * 2]
