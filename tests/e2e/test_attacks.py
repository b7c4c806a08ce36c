"""What a delegated user may try, by the list of the issue; each beside the very same done right.

The rules are wide on purpose: what refuses is the dialect, not a rule that is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from broker.client import call
from broker.wire import Failure
from tests.broker.rig import Daemon, answer, serving

POLICY = """\
!dialect delegation-1
!define @mine (@tag:created-by-{source}|@tag:managed-by-{source})
!limit @tag:operator running=3
admin.vm.List * @tag:operator @adminvm|@mine allow
@read:local|@execute:local * @tag:operator @mine allow
admin.vm.device.block.Assign * @tag:operator @mine allow
admin.vm.property.Set +netvm @tag:operator @mine allow value=(@tag:shared-net|none)
admin.vm.property.Set +template @tag:operator @mine allow value=@tag:shared-tpl
admin.vm.property.Set +memory|+maxmem @tag:operator @mine allow value=256..4096
admin.vm.property.Set +label @tag:limited @mine allow value=(red|green)
admin.vm.property.Set|admin.vm.property.Reset * @tag:operator @mine allow
admin.vm.tag.Set|admin.vm.tag.Remove +backup|+mine-* @tag:operator @mine allow
admin.vm.tag.Set|admin.vm.tag.Remove * @tag:operator @mine allow
admin.vm.feature.Set|admin.vm.feature.Remove * @tag:operator @mine allow
admin.vm.volume.CloneFrom|admin.vm.volume.CloneTo * @tag:operator @mine allow
admin.vm.CreateDisposable * @tag:operator @mine allow
admin.vm.Create.AppVM @tag:shared-tpl @tag:operator @adminvm allow value=(name={source}_* label=red|green)
admin.vm.Create.StandaloneVM + @tag:operator @adminvm allow
admin.vm.Remove * @tag:operator @mine allow
qubes.Never * * @label:purple allow
"""


NEW = "admin.vm.Create.AppVM"


@dataclass(frozen=True)
class Attempt:
    """A call as its caller types it: ``SERVICE+ARGUMENT TARGET [PAYLOAD]``."""

    text: str
    caller: str = "alice"

    def made(self, daemon: Daemon) -> bytes | Failure:
        service, target, *payload = self.text.split(" ", 2)
        name, _, argument = service.partition("+")
        return answer(daemon.channel(self.caller), name, target, argument, "".join(payload).encode())


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("root"), POLICY) as daemon:
        daemon.create("shared-tpl", "secret-tpl", klass="TemplateVM", tags={"shared-tpl": "shared-tpl"})
        call(daemon.socket, "admin.property.Set", "dom0", "default_template", b"secret-tpl")
        daemon.create("alice", "bob", "a", "a_b", "shared-net", "secret-net")
        daemon.create("hers", "his", "vault", "hers-dvm", "secret-dvm", klass="AppVM")
        for name in ("alice", "bob", "a", "a_b"):
            call(daemon.socket, "admin.vm.tag.Set", name, "operator")
        call(daemon.socket, "admin.vm.tag.Set", "bob", "limited")
        for name in ("shared-net", "secret-net"):
            call(daemon.socket, "admin.vm.property.Set", name, "provides_network", b"True")
        call(daemon.socket, "admin.vm.tag.Set", "shared-net", "shared-net")
        for name, tag in (
            ("hers", "managed-by-alice"),
            ("hers-dvm", "managed-by-alice"),
            ("his", "managed-by-bob"),
            ("a_b", "managed-by-a"),
        ):
            call(daemon.socket, "admin.vm.tag.Set", name, tag)
        for name in ("hers", "hers-dvm", "his"):
            call(daemon.socket, "admin.vm.property.Set", name, "template", b"shared-tpl")
        for name in ("hers-dvm", "secret-dvm"):
            call(daemon.socket, "admin.vm.property.Set", name, "template_for_dispvms", b"True")
        for name in ("hers", "hers-dvm", "his", "secret-net", "shared-net"):
            call(daemon.socket, "admin.vm.property.Set", name, "netvm", b"")
        call(daemon.socket, "admin.property.Set", "dom0", "default_netvm", b"secret-net")
        yield daemon


RIGHT = [
    "admin.vm.Start hers",
    "admin.vm.property.Set+netvm hers shared-net",
    "admin.vm.property.Set+netvm hers ",
    "admin.vm.property.Set+template hers shared-tpl",
    "admin.vm.property.Set+memory hers 500",
    "admin.vm.property.Set+debug hers True",
    "admin.vm.tag.Set+backup hers",
    "admin.vm.tag.Set+something hers",
    "admin.vm.feature.Set+something hers 1",
    "admin.vm.CreateDisposable hers-dvm",
    "admin.vm.Create.AppVM+shared-tpl dom0 name=alice_new label=red",
    "admin.vm.volume.CloneFrom+private hers",
]


@pytest.mark.parametrize("text", [pytest.param(text, id=text) for text in RIGHT])
def test_what_is_granted_is_done(daemon: Daemon, text: str) -> None:
    answer(daemon.socket, "admin.vm.Kill", "hers")
    assert isinstance(Attempt(text).made(daemon), bytes)


WRONG = [
    ("dom0's device", "admin.vm.device.block.Attach+dom0+sda hers", "alice"),
    ("another's device", "admin.vm.device.block.Attach+his+sda hers", "alice"),
    ("another's device, for later", "admin.vm.device.block.Assign+his+sda hers mode='auto-attach'", "alice"),
    ("dom0's microphone", "admin.vm.device.mic.Attach+dom0+mic hers", "alice"),
    ("a template not granted, in a new qube", f"{NEW}+secret-tpl dom0 name=alice_x label=red", "alice"),
    ("a template not granted, by default", "admin.vm.Create.AppVM dom0 name=alice_x label=red", "alice"),
    ("a template not granted, in a qube of hers", "admin.vm.property.Set+template hers secret-tpl", "alice"),
    ("a template that is nowhere", "admin.vm.property.Set+template hers no-such", "alice"),
    ("a netvm not granted", "admin.vm.property.Set+netvm hers secret-net", "alice"),
    ("a netvm not granted, by default", "admin.vm.property.Reset+netvm hers", "alice"),
    ("another's qube for disposables", "admin.vm.property.Set+default_dispvm hers secret-dvm", "alice"),
    ("disposables of another's template", "admin.vm.CreateDisposable secret-dvm", "alice"),
    ("disposables of the default template", "admin.vm.CreateDisposable dom0", "alice"),
    ("another's volume", "admin.vm.volume.CloneFrom+private his", "alice"),
    ("a tag that gives to bob", "admin.vm.tag.Set+managed-by-bob hers", "alice"),
    ("a tag that takes from the one who manages", "admin.vm.tag.Remove+managed-by-alice hers", "alice"),
    ("a tag that makes an operator", "admin.vm.tag.Set+operator hers", "alice"),
    ("a tag that shares a netvm", "admin.vm.tag.Set+shared-net hers", "alice"),
    ("a tag that shares a template", "admin.vm.tag.Set+shared-tpl hers", "alice"),
    ("a tag of who created it", "admin.vm.tag.Set+created-by-bob hers", "alice"),
    ("a tag of whose disposable it is", "admin.vm.tag.Set+disp-created-by-bob hers", "alice"),
    ("tags of what will be created", "admin.vm.feature.Set+tag-created-vm-with hers managed-by-bob", "alice"),
    ("screens of what will be created", "admin.vm.feature.Set+set-created-guivm hers his", "alice"),
    ("another owner", "admin.vm.feature.Set+owner-uuid hers 00000000-0000-0000-0000-000000000000", "alice"),
    ("a label that changes a match", "admin.vm.property.Set+label hers purple", "alice"),
    ("a label that changes a match, by its number", "admin.vm.property.Set+label hers 7", "alice"),
    ("a label not granted, by its number", "admin.vm.property.Set+label his 7", "bob"),
    ("another screen", "admin.vm.property.Set+guivm hers his", "alice"),
    ("memory beyond the range", "admin.vm.property.Set+memory hers 4097", "alice"),
    ("memory without end", "admin.vm.property.Set+maxmem hers 0", "alice"),
    ("a name that is not hers", f"{NEW}+shared-tpl dom0 name=bob_x label=red", "alice"),
    ("a label not granted, in a new qube", f"{NEW}+shared-tpl dom0 name=alice_x label=black", "alice"),
    ("a qube called like an operator", "admin.vm.Create.StandaloneVM dom0 name=alice label=red", "alice"),
    ("a caller that is a part of another", f"{NEW}+shared-tpl dom0 name=a_b_x label=red", "a_b"),
    ("a hidden qube", "admin.vm.Start vault", "alice"),
    ("a qube that is nowhere", "admin.vm.Start no-such", "alice"),
]


@pytest.mark.parametrize(
    ("text", "caller"), [pytest.param(text, caller, id=name) for name, text, caller in WRONG]
)
def test_what_is_not_is_denied(daemon: Daemon, text: str, caller: str) -> None:
    before = everything(daemon)
    reply = Attempt(text, caller).made(daemon)
    assert isinstance(reply, Failure)
    assert reply.refused
    assert everything(daemon) == before


def everything(daemon: Daemon) -> str:
    return (daemon.root / "var/lib/qubes/qubes.xml").read_text(encoding="utf-8")


def test_a_label_by_its_number_is_the_label(daemon: Daemon) -> None:
    assert Attempt("admin.vm.property.Set+label his 5", "bob").made(daemon) != b""
    assert Attempt("admin.vm.property.Set+label his 4", "bob").made(daemon) == b""
    assert call(daemon.socket, "admin.vm.property.Get", "his", "label").endswith(b" green")


def test_a_does_not_manage_what_is_for_a_b(daemon: Daemon) -> None:
    """``{source}_*`` for ``a`` is not what ``a_b`` may make, whatever ``a`` is called."""
    made = Attempt("admin.vm.Create.AppVM+shared-tpl dom0 name=a_x label=red", "a").made(daemon)
    assert made == b""
    answered = Attempt(f"{NEW}+shared-tpl dom0 name=a_b_x label=red", "a_b").made(daemon)
    assert isinstance(answered, Failure)


def test_a_name_that_policy_or_a_tag_speaks_of_is_dom0s_to_give_again(daemon: Daemon) -> None:
    daemon.create("carol")
    call(daemon.socket, "admin.vm.tag.Set", "hers", "managed-by-carol")
    call(daemon.socket, "admin.vm.Remove", "carol")
    taken = Attempt("admin.vm.Create.StandaloneVM dom0 name=carol label=red").made(daemon)
    assert isinstance(taken, Failure)
    assert taken.refused
    call(daemon.socket, "admin.vm.tag.Remove", "hers", "managed-by-carol")
    assert Attempt("admin.vm.Create.StandaloneVM dom0 name=carol label=red").made(daemon) == b""
    call(daemon.socket, "admin.vm.Remove", "carol")


def test_a_disposable_inherits_no_authority(daemon: Daemon) -> None:
    for tag in ("managed-by-bob", "plain"):
        call(daemon.socket, "admin.vm.tag.Set", "hers-dvm", tag)
    made = Attempt("admin.vm.CreateDisposable hers-dvm").made(daemon)
    assert isinstance(made, bytes)
    tags = call(daemon.socket, "admin.vm.tag.List", made.decode()).decode().split()
    assert "plain" in tags
    assert "managed-by-bob" not in tags
    assert "created-by-alice" in tags
    call(daemon.socket, "admin.vm.tag.Remove", "hers-dvm", "managed-by-bob")


def test_starting_what_bob_owns_counts_for_bob(daemon: Daemon) -> None:
    names = [f"bob_{number}" for number in range(4)]
    for name in names:
        made = Attempt(f"admin.vm.Create.AppVM+shared-tpl dom0 name={name} label=red", "bob").made(daemon)
        assert made == b""
        call(daemon.socket, "admin.vm.tag.Set", name, "managed-by-alice")
    for name in names[:3]:
        assert Attempt(f"admin.vm.Start {name}").made(daemon) == b""
    denied, told = (
        Attempt(f"admin.vm.Start {names[3]}").made(daemon),
        Attempt(f"admin.vm.Start {names[3]}", "bob").made(daemon),
    )
    assert isinstance(denied, Failure)
    assert isinstance(told, Failure)
    assert denied.refused
    assert "3 of 3" not in str(denied)
    assert "3 of 3" in str(told)
    for name in names:
        answer(daemon.socket, "admin.vm.Kill", name)
        call(daemon.socket, "admin.vm.Remove", name)


@pytest.mark.parametrize(
    "chain",
    [pytest.param(chain, id=chain) for chain in ("Template", "Netvm", "AdminVM", "TemplateAndAdminVM")],
)
def test_a_chain_ends_where_reading_is_not_granted(daemon: Daemon, chain: str) -> None:
    """The features of her template, her netvm and dom0 are none of hers, whatever inherits them."""
    answer(daemon.socket, "admin.vm.Kill", "hers")
    for name, feature in (("shared-tpl", "kept"), ("shared-net", "kept"), ("dom0", "kept"), ("hers", "own")):
        call(daemon.socket, "admin.vm.feature.Set", name, feature, b"1")
    call(daemon.socket, "admin.vm.property.Set", "hers", "netvm", b"shared-net")
    service = f"admin.vm.feature.CheckWith{chain}"
    assert call(daemon.socket, service, "hers", "kept") == b"1"
    kept, nowhere = (Attempt(f"{service}+{name} hers").made(daemon) for name in ("kept", "none"))
    assert isinstance(kept, Failure)
    assert isinstance(nowhere, Failure)
    assert kept.kind == nowhere.kind == "QubesFeatureNotFoundError"
    assert Attempt(f"{service}+own hers").made(daemon) == b"1"
    call(daemon.socket, "admin.vm.property.Set", "hers", "netvm", b"")
