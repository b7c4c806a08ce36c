"""The law of visibility: what a caller may not see makes no difference to it, to the byte.

Two daemons differ only in that. The same calls of one caller go to both, calls of dom0 on what the caller
sees too, and on one of them dom0 also does things that the caller may not see. Both transcripts, events
included, are equal, except for uuids, which are drawn at random.
"""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from broker.client import CallError, call, connect, send_all
from broker.wire import EventReader, encode_call, encode_event, encode_refusal
from qubesd.api.method import Call
from qubesd.config import rooted
from tests.broker.rig import PATIENCE, Daemon, exchange, listening, serving

STRICT = 'visibility = "strict"\n'


def named(prefix: str, words: str) -> tuple[str, ...]:
    return tuple(prefix + word for word in words.split())


READS = (
    *named("admin.", "vm.List Events vm.CurrentState"),
    *named("admin.vm.property.", "List GetAll Get"),
    *named("admin.vm.feature.", "List Get"),
    *named("admin.vm.tag.", "List Get"),
    *named("admin.vm.", "device.denied.List Stats"),
    *named("admin.vm.volume.", "List Info ListSnapshots"),
    *named("admin.vm.device.block.", "Available Assigned Attached List"),
    *named("admin.vm.", "firewall.Get notes.Get"),
)
WRITES = (
    *named("admin.vm.property.", "Set Reset"),
    *named("admin.vm.feature.", "Set Remove"),
    *named("admin.vm.tag.", "Set Remove"),
    *named("admin.vm.device.denied.", "Add Remove"),
    *named("admin.vm.volume.", "Resize Clear Snapshot Revert Set.revisions_to_keep Set.rw CloneFrom CloneTo"),
    *named("admin.vm.device.block.", "Assign Unassign Attach Detach Set.assignment Set.required"),
    *named("admin.vm.", "firewall.Set firewall.Reload notes.Set"),
    *named("admin.vm.", "Start Kill Pause Unpause Remove CreateDisposable"),
)
GLOBAL = (
    *named("admin.", "vm.List vm.Stats Events vm.Create.AppVM label.List label.Get"),
    *named("admin.pool.", "List Info volume.List volume.Info volume.ListSnapshots volume.Snapshot"),
    *named("admin.pool.volume.", "Resize Revert CloneFrom CloneTo Set.revisions_to_keep"),
)
DRAWN = (
    *named("", "dispid gateway gateway6 ip ip6 mac qid start_time stubdom_uuid stubdom_xid uuid xid"),
    *named("visible_", "gateway gateway6 ip ip6"),
)
"""Properties that are drawn at random, or count the domains of the whole machine."""

MINE = ("mine", "created-by-alice")

POLICY = "\n".join(
    [
        *(f"admin.vm.property.Get +{name} alice @anyvm deny" for name in DRAWN),
        "admin.vm.feature.Get +private alice @anyvm deny",
        "admin.vm.tag.Get +private alice @anyvm deny",
        *(f"{service} * alice @tag:shared allow target=dom0" for service in READS),
        *(f"{service} * alice @tag:{tag} allow target=dom0" for tag in MINE for service in READS + WRITES),
        *(f"{service} * alice @adminvm allow target=dom0" for service in GLOBAL),
        "admin.vm.List * alice @default allow target=dom0",
        "",
    ]
)

SEEN = ("alice", "work", "mail", "net", "tmpl", "new-1", "new-2")
HIDDEN = ("secret-1", "secret-2", "secret-3")
OWN = st.sampled_from(("alice", "work", "mail", "new-1"))
ANY_NAME = st.sampled_from((*SEEN, *HIDDEN, "nobody", "dom0"))
MOSTLY_OWN = st.one_of(OWN, OWN, ANY_NAME)
MOSTLY_HIDDEN = st.one_of(st.sampled_from(HIDDEN), ANY_NAME)


@dataclass(frozen=True)
class Step:
    """A call; ``where`` is ``alice`` (hers, on both), ``both`` or ``hidden`` (dom0's, on both or on one)."""

    where: str
    service: str
    target: str = "dom0"
    argument: str = ""
    payload: bytes = b""


QUBE_PROPERTIES = ("netvm", "template", "default_dispvm", "management_dispvm", "guivm", "audiovm")
POWER = tuple(f"admin.vm.{verb}" for verb in ("Start", "Kill", "Pause", "Unpause"))
PLAIN = (
    *named(
        "admin.vm.", "List CurrentState property.List property.GetAll feature.List tag.List CreateDisposable"
    ),
    "admin.vm.device.denied.List",
    "admin.label.List",
)
WITH_WORD = named("admin.", "vm.property.Get vm.feature.Get vm.tag.Get label.Get")
ARGUMENTS = named("", "netvm template label guivm plain private created-by-bob memory xid red")


BLOCK = "admin.vm.device.block"
VOLUMES = st.sampled_from(("private", "private", "root", "volatile", "kernel", "none"))
BACKENDS = ("work", "mail", "secret-1", "nobody")
PORTS = st.sampled_from(("sda", "sdb"))
DEVICES = st.builds("{}+{}".format, st.sampled_from(BACKENDS), PORTS)
DEVICES_SEEN = st.builds("{}+{}".format, st.sampled_from(("work", "mail", "nobody")), PORTS)
VIDS = st.builds(
    "appvms/{}/{}".format,
    st.sampled_from(("work", "alice", "secret-1", "nobody")),
    st.sampled_from(("private", "root")),
)


def _not_alice(name: str) -> str:
    return "mail" if name == "alice" else name


def changes(where: str, names: st.SearchStrategy[str]) -> st.SearchStrategy[Step]:
    """Changes to these qubes. Alice sets what names a qube to any, since a name is what can be probed."""
    values = (MOSTLY_HIDDEN if where == "alice" else names).map(str.encode)
    devices = DEVICES_SEEN if where == "both" else DEVICES
    tags = st.sampled_from(("private", "plain") if where == "hidden" else ("private", "plain", "mine"))
    codes = st.sampled_from((b"", b"u030101", b"b******m******", b"b*", b"all"))
    features = st.sampled_from(("private", "plain", "internal", "tag-created-vm-with"))

    def step(services: Iterable[str], *words: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
        return st.builds(Step, st.just(where), st.sampled_from(tuple(services)), names, *words)

    return st.one_of(
        step(["admin.vm.property.Set"], st.sampled_from(QUBE_PROPERTIES), values),
        step(["admin.vm.property.Set"], st.just("label"), st.sampled_from((b"red", b"blue"))),
        step(["admin.vm.property.Reset"], st.sampled_from(QUBE_PROPERTIES)),
        step(["admin.vm.tag.Set", "admin.vm.tag.Remove"], tags),
        step([f"admin.vm.device.denied.{verb}" for verb in ("Add", "Remove")], st.just(""), codes),
        step(["admin.vm.feature.Set"], features, st.just(b"1")),
        step(["admin.vm.feature.Remove"], features),
        step(POWER),
        step(["admin.vm.volume.Clear", "admin.vm.volume.Snapshot"], VOLUMES),
        step(["admin.vm.volume.Set.revisions_to_keep"], VOLUMES, st.sampled_from((b"0", b"3"))),
        step(["admin.vm.volume.Resize"], VOLUMES, st.sampled_from((b"3221225472", b"3221229568"))),
        step(["admin.vm.volume.Revert"], VOLUMES, st.sampled_from((b"1", b"2"))),
        step(["admin.vm.firewall.Set"], st.just(""), st.sampled_from((b"action=drop", b"action=accept"))),
        step(["admin.vm.firewall.Reload"]),
        step(["admin.vm.notes.Set"], st.just(""), st.sampled_from((b"one", b"two"))),
        step([f"{BLOCK}.Assign"], devices, st.sampled_from((b"mode='auto-attach'", b"mode='required'"))),
        step([f"{BLOCK}.Set.assignment"], devices, st.sampled_from((b"auto-attach", b"ask-to-attach"))),
        step([f"{BLOCK}.{verb}" for verb in ("Unassign", "Attach", "Detach")], devices),
        # The listener itself stays.
        st.builds(Step, st.just(where), st.just("admin.vm.Remove"), names.map(_not_alice)),
    )


OF_VOLUME = named("admin.vm.volume.", "Info ListSnapshots CloneFrom")
PLAIN_LATER = (
    *named("admin.vm.", "volume.List firewall.Get notes.Get"),
    *(f"{BLOCK}.{verb}" for verb in ("Available", "Assigned", "Attached", "List")),
)
OF_POOL = named("admin.pool.volume.", "Info ListSnapshots Snapshot CloneFrom")
POOLS = st.sampled_from(("varlibqubes", "linux-kernel", "none"))


def questions() -> st.SearchStrategy[Step]:
    """What alice can ask of anything, and qubes that she makes."""
    alice, templates = st.just("alice"), st.one_of(st.just(""), st.just("tmpl"), MOSTLY_HIDDEN)
    new = st.sampled_from((b"name=new-1 label=red", b"name=new-2 label=blue", b"name=new-1 label=none"))
    return st.one_of(
        st.builds(Step, alice, st.sampled_from(PLAIN), MOSTLY_OWN),
        st.builds(Step, alice, st.sampled_from(WITH_WORD), MOSTLY_OWN, st.sampled_from(ARGUMENTS)),
        st.builds(Step, alice, st.just("admin.vm.Create.AppVM"), st.just("dom0"), templates, new),
        st.builds(Step, alice, st.sampled_from(OF_VOLUME), MOSTLY_OWN, VOLUMES),
        st.builds(Step, alice, st.sampled_from(PLAIN_LATER), MOSTLY_OWN),
        st.builds(Step, alice, st.sampled_from(OF_POOL), st.just("dom0"), POOLS, VIDS.map(str.encode)),
        st.builds(Step, alice, st.just("admin.pool.volume.List"), st.just("dom0"), POOLS),
        st.builds(Step, alice, st.just("admin.pool.List")),
    )


DISPOSABLE = re.compile(rb"disp[0-9]+")
CPU_TIME = re.compile(rb"cputime=[0-9]+")
TOKEN = re.compile(rb"(?<=^0\0)[A-Za-z0-9]{32}$")
USAGE = re.compile(rb"usage=[0-9]+")
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Side:
    """One of the daemons, with alice's stream and her transcript."""

    def __init__(self, daemon: Daemon, path: Path, stream: socket.socket) -> None:
        self.daemon = daemon
        self.path = path
        self.stream = stream
        self.drawn: dict[bytes, bytes] = {}

    def hers(self, step: Step) -> bytes:
        request = encode_call(Call(step.service, step.argument, "dom0", step.target, step.payload))
        return self.plain(exchange(self.path, request))

    def dom0s(self, step: Step) -> bool:
        """Whether it could be done."""
        try:
            call(self.daemon.socket, step.service, step.target, step.argument, step.payload, timeout=PATIENCE)
        except CallError:
            return False
        return True

    def events(self, number: int) -> bytes:
        """What came on the stream until a change that alice sees."""
        feature = f"mark-{number}"
        call(self.daemon.socket, "admin.vm.feature.Set", "mark", feature, b"1")
        end = encode_event("mark", f"domain-feature-set:{feature}", (("feature", feature), ("value", "1")))
        data = b""
        while not data.endswith(end):
            more = self.stream.recv(65_536)
            assert more, "the stream ended"
            data += more
        return self.plain(data)

    def plain(self, data: bytes) -> bytes:
        """With what is drawn at random replaced by its number in order of appearance, and no clock."""

        def named(found: re.Match[bytes]) -> bytes:
            return self.drawn.setdefault(found[0], b"<%d>" % len(self.drawn))

        data = data.replace(bytes(self.daemon.root), b"/root")
        data = USAGE.sub(b"usage=", TOKEN.sub(named, data))
        return CPU_TIME.sub(b"cputime=", DISPOSABLE.sub(named, UUID.sub(named, data)))


SEEN_SYSTEM = """\
admin.vm.Create.TemplateVM dom0 name=tmpl label=black
admin.property.Set+default_template dom0 tmpl
admin.vm.Create.AppVM dom0 name=net label=red
admin.vm.property.Set+provides_network net True
admin.vm.Create.AppVM dom0 name=alice label=red
admin.vm.Create.AppVM dom0 name=work label=red
admin.vm.property.Set+netvm work net
admin.vm.property.Set+template_for_dispvms work True
admin.vm.Create.AppVM dom0 name=mail label=red
admin.vm.Create.AppVM dom0 name=mark label=red
admin.property.Set+default_dispvm dom0 work
admin.vm.tag.Set+shared tmpl
admin.vm.tag.Set+shared net
admin.vm.tag.Set+shared mark
admin.vm.tag.Set+mine alice
admin.vm.tag.Set+mine work
admin.vm.tag.Set+mine mail
admin.vm.tag.Set+private mail
"""
HIDDEN_QUBES = """\
admin.vm.Create.AppVM dom0 name=secret-1 label=red
admin.vm.property.Set+provides_network secret-1 True
admin.vm.property.Set+template_for_dispvms secret-1 True
admin.vm.tag.Set+created-by-bob secret-1
admin.vm.Create.TemplateVM dom0 name=secret-2 label=red
admin.vm.tag.Set+private secret-2
"""


def carry_out(daemon: Daemon, script: str) -> None:
    """Calls of dom0, one a line: SERVICE+ARGUMENT TARGET PAYLOAD."""
    for line in script.splitlines():
        method, target, *payload = line.split(" ", 2)
        service, _, argument = method.partition("+")
        call(daemon.socket, service, target, argument, "".join(payload).encode("ascii"))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a system without what alice may not see."""
    root = tmp_path_factory.mktemp("seen")
    with serving(root) as daemon:
        carry_out(daemon, SEEN_SYSTEM)
    return root


@contextmanager
def side(folder: Path, seen: Path, with_hidden: bool) -> Iterator[Side]:
    for backend in ("work", "secret-1") if with_hidden else ("work",):
        place = rooted(folder).run_dir / f"qubesdb/{backend}/qubes-block-devices/sda"
        place.mkdir(parents=True)
        (place / "desc").write_text("disk")
    kept = rooted(folder).qubes_dir
    kept.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", "--sparse=always", rooted(seen).qubes_dir, kept], check=True)
    store = rooted(folder).store
    store.write_bytes(store.read_bytes().replace(bytes(seen), bytes(folder)))
    with serving(folder, POLICY, STRICT) as daemon:
        carry_out(daemon, "admin.vm.Start net")
        if with_hidden:
            carry_out(daemon, HIDDEN_QUBES)
        with listening(daemon.channel("alice")) as stream:
            stream.settimeout(PATIENCE)
            yield Side(daemon, daemon.channel("alice"), stream)


MADE = [
    Step("hidden", "admin.vm.Create.AppVM", payload=b"name=secret-3 label=red"),
    Step("hidden", "admin.vm.property.Set", "secret-3", "netvm", b"net"),
    Step("hidden", "admin.vm.Start", "secret-3"),
    Step("hidden", "admin.vm.property.Set", "secret-3", "netvm", b"secret-1"),
    Step("hidden", "admin.vm.property.Set", "secret-1", "netvm", b"net"),
    Step("hidden", "admin.vm.Start", "secret-1"),
    Step("hidden", "admin.vm.Kill", "secret-3"),
    Step("hidden", "admin.vm.Remove", "secret-3"),
]
"""What touches a qube that alice sees, done by one that she does not."""

SCRIPTS = st.lists(
    st.one_of(
        questions(),
        changes("alice", MOSTLY_OWN),
        changes("both", st.sampled_from(("alice", "work", "mail"))),
        changes("hidden", st.just("secret-2")),
        changes("hidden", st.just("secret-3")),
        st.sampled_from(MADE),
    ),
    min_size=20,
    max_size=60,
)


@settings(
    max_examples=8,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(SCRIPTS)
def test_what_a_caller_may_not_see_makes_no_difference_to_it(seen: Path, script: list[Step]) -> None:
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        one = stack.enter_context(side(folders[0], seen, with_hidden=False))
        other = stack.enter_context(side(folders[1], seen, with_hidden=True))
        for number, step in enumerate(script):
            match step.where:
                case "alice":
                    assert one.hers(step) == other.hers(step), script[: number + 1]
                case "both":
                    assert one.dom0s(step) == other.dom0s(step), script[: number + 1]
                case _:
                    event(f"{step.service}: {'done' if other.dom0s(step) else 'refused'}")
            assert one.events(number) == other.events(number), script[: number + 1]


def test_nobody_learns_from_statistics_what_else_runs(tmp_path: Path, seen: Path) -> None:
    """Two rounds on each of two daemons, one with a hidden qube that runs, are of the same qubes."""

    def subjects(with_hidden: bool) -> list[str]:
        with side(tmp_path / str(with_hidden), seen, with_hidden) as one:
            carry_out(one.daemon, "admin.property.Set+stats_interval dom0 1\nadmin.vm.Start work")
            if with_hidden:
                carry_out(one.daemon, "admin.vm.Start secret-1")
            with connect(one.path, PATIENCE) as stream:
                send_all(stream, encode_call(Call("admin.vm.Stats", "", "dom0", "dom0", b"")))
                reader = EventReader()
                told: list[str] = []
                while len(told) < 7:
                    told += [event.subject for event in reader.feed(stream.recv(65_536))]
                return told[:7]

    rounds = ["", *("dom0", "net", "work") * 2]
    assert subjects(with_hidden=False) == subjects(with_hidden=True) == rounds


@pytest.mark.parametrize("target", ["secret-1", "nobody", "uuid", "a b", ""])
def test_hidden_and_absent_are_the_same_bytes(tmp_path: Path, seen: Path, target: str) -> None:
    """Though a rule lets calls through that name no qube: stock would tell the two apart there."""
    with side(tmp_path, seen, True) as daemon:
        if target == "uuid":
            target = f"uuid:{daemon.daemon.channel('secret-1').stem}"
        assert daemon.hers(Step("alice", "admin.vm.List", target)) == encode_refusal(2)


@pytest.mark.parametrize(
    ("service", "target", "argument", "payload"),
    [
        pytest.param("admin.vm.property.Set", "work", "netvm", b"%s", id="netvm"),
        pytest.param("admin.vm.property.Set", "work", "template", b"%s", id="template"),
        pytest.param("admin.vm.property.Set", "work", "default_dispvm", b"%s", id="default-dispvm"),
        pytest.param(
            "admin.vm.Create.AppVM", "dom0", "%s", b"name=new label=red", id="template-of-a-new-one"
        ),
        pytest.param("admin.vm.property.Get", "%s", "label", b"", id="a-read"),
        pytest.param("admin.vm.CreateDisposable", "%s", "", b"", id="a-disposable"),
        pytest.param(f"{BLOCK}.Attach", "work", "%s+sda", b"", id="a-device"),
        pytest.param(f"{BLOCK}.Assign", "work", "%s+sda", b"mode='auto-attach'", id="an-assignment"),
        pytest.param("admin.pool.volume.Info", "dom0", "varlibqubes", b"appvms/%s/private", id="a-volume"),
        pytest.param(
            "admin.pool.volume.CloneFrom", "dom0", "varlibqubes", b"appvms/%s/private", id="a-volume-to-copy"
        ),
        pytest.param("admin.vm.volume.CloneFrom", "%s", "private", b"", id="a-clone"),
    ],
)
def test_a_hidden_qube_is_named_in_vain(
    tmp_path: Path, seen: Path, service: str, target: str, argument: str, payload: bytes
) -> None:
    with side(tmp_path, seen, True) as one:

        def named(name: str) -> bytes:
            words = (
                target.replace("%s", name),
                argument.replace("%s", name),
                payload.replace(b"%s", name.encode()),
            )
            reply = one.hers(Step("alice", service, *words))
            return re.sub(rb"record [0-9]+", b"record", reply).replace(name.encode(), b"NAME")

        hidden, absent = named("secret-1"), named("missing1")
        assert hidden == absent
        assert hidden.startswith(b"2\0")
