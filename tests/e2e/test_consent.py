"""A rule that says ask: who is asked about what, and which calls are carried out on the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.client import call
from broker.wire import Failure
from tests.broker.policy_rig import lines
from tests.broker.rig import PATIENCE, Daemon, answer, exchange, serving
from tests.broker.user_rig import User, user_at

STOCK = """\
admin.vm.CurrentState * alice @anyvm ask target=dom0
admin.vm.feature.Set * alice @anyvm ask target=dom0
test.Ask * alice @anyvm ask
admin.vm.List * alice @anyvm ask
"""

DIALECT = """\
!dialect delegation-1
admin.vm.CurrentState * bob @tag:his ask
admin.vm.Start|admin.vm.Kill|admin.vm.Remove * bob @tag:his ask
admin.vm.property.Set +netvm bob @tag:his ask value=(@tag:net|none)
admin.vm.property.Set +memory bob @tag:his ask value=256..4096
admin.vm.feature.Set * bob @tag:his ask notify=yes
admin.vm.notes.Set * bob @tag:his ask
admin.vm.tag.Set * bob @tag:his ask
admin.vm.firewall.Reload * bob @tag:his ask remember=1h
qubes.Never * * @tag:power allow
"""


@dataclass(frozen=True)
class House:
    daemon: Daemon
    user: User

    @property
    def policy(self) -> Path:
        return self.daemon.root / "run/qubes/policy.sock"

    def asks(self, source: str, target: str, service: str, **more: str) -> str:
        """What the qrexec daemon is told."""
        return exchange(self.policy, lines(source, target, service, **more)).decode("ascii")

    def comes(
        self, source: str, target: str, service: str, argument: str = "", payload: bytes = b""
    ) -> bytes | Failure:
        """The call as the qrexec daemon hands it to qubesd."""
        return answer(self.daemon.socket, service, target, argument, payload, source)

    def calls(
        self, source: str, target: str, service: str, argument: str = "", payload: bytes = b""
    ) -> bytes | Failure:
        """The call over the qube's own socket."""
        return answer(self.daemon.channel(source), service, target, argument, payload)

    def write(self, text: str) -> None:
        """Another policy, once it is in force."""
        folder = self.daemon.root / "etc/qubes/policy.d"
        digest, fresh = self.digest(), folder / ".new"
        fresh.write_text(text)
        fresh.replace(folder / "10-test.policy")
        eventually(lambda: self.digest() != digest)

    def digest(self) -> bytes:
        status = call(self.daemon.root / "run/qubesd.internal.sock", "internal.PolicyStatus")
        return status.split(b'"digest": ')[1].split(b",")[0]


@contextmanager
def house(root: Path, config: str = "") -> Iterator[House]:
    with serving(root, STOCK, config) as daemon, user_at(root / "etc/qubes-rpc") as user:
        (root / "etc/qubes/policy.d/20-dialect.policy").write_text(DIALECT)
        daemon.create("alice", "bob", "work", "net1", "net2")
        for name in ("alice", "bob"):
            call(daemon.socket, "admin.vm.property.Set", name, "guivm", b"dom0")
        call(daemon.socket, "admin.vm.property.Set", "net1", "provides_network", b"True")
        for name, tag in (("work", "his"), ("net1", "net")):
            call(daemon.socket, "admin.vm.tag.Set", name, tag)
        found = House(daemon, user)
        status = root / "run/qubesd.internal.sock"
        eventually(lambda: b"20-dialect" in call(status, "internal.PolicyStatus"))
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("root")) as found:
        yield found


@pytest.fixture
def here(shared: House) -> House:
    shared.user.questions()
    shared.user.told.clear()
    shared.user.answers = lambda asked: f"allow:{asked['targets'][0]}"
    return shared


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def denied(reply: bytes | Failure) -> bool:
    return isinstance(reply, Failure) and reply.refused


@pytest.mark.parametrize(
    ("source", "target", "service", "argument", "payload", "shown", "choices"),
    [
        pytest.param("alice", "work", "CurrentState", "", b"", "+ of work", ["dom0"], id="stock"),
        pytest.param("bob", "work", "CurrentState", "", b"", "+", ["work"], id="dialect"),
        pytest.param(
            "alice", "work", "feature.Set", "x", b"y z", "+x of work = y z", ["dom0"], id="stock-payload"
        ),
        pytest.param("bob", "work", "property.Set", "netvm", b"net1", "+netvm = net1", ["work"], id="value"),
        pytest.param("bob", "work", "property.Set", "netvm", b"", "+netvm = none", ["work"], id="empty"),
        pytest.param("bob", "work", "property.Set", "memory", b"300", "+memory = 300", ["work"], id="number"),
        pytest.param(
            "bob",
            "work",
            "notes.Set",
            "",
            "a\n<b>\u202e\\".encode(),
            "+ = a\\n<b>\\u202e\\\\",
            ["work"],
            id="hostile",
        ),
    ],
)
def test_the_question_shows_the_call(
    here: House,
    source: str,
    target: str,
    service: str,
    argument: str,
    payload: bytes,
    shown: str,
    choices: list[str],
) -> None:
    reply = here.calls(source, target, f"admin.vm.{service}", argument, payload)
    assert isinstance(reply, bytes), reply
    (asked,) = here.user.questions()
    assert {key: asked[key] for key in ("source", "service", "argument", "targets", "default_target")} == {
        "source": source,
        "service": f"admin.vm.{service}",
        "argument": shown,
        "targets": choices,
        "default_target": "",
    }


def test_a_long_value_is_cut(here: House) -> None:
    here.calls("bob", "work", "admin.vm.feature.Set", "x", b"y" * 60_000)
    (asked,) = here.user.questions()
    assert asked["argument"].startswith("+x = yyyy")
    assert "60000 bytes, sha256 " in asked["argument"]
    assert len(asked["argument"]) < 300


@pytest.mark.parametrize("said", ["deny", "", "allow:", "allow:dom0\n", "allow:net1", "yes"])
def test_what_is_no_yes_is_a_denial(here: House, said: str) -> None:
    here.user.answers = lambda asked: said
    assert denied(here.calls("bob", "work", "admin.vm.feature.Set", "never", b"1"))
    assert len(here.user.questions()) == 1
    assert isinstance(answer(here.daemon.socket, "admin.vm.feature.Get", "work", "never"), Failure)


@pytest.mark.parametrize(
    ("target", "service", "argument", "payload"),
    [
        pytest.param("work", "property.Set", "netvm", b"net2", id="value-not-allowed"),
        pytest.param("work", "property.Set", "memory", b"5000", id="number-not-allowed"),
        pytest.param("work", "tag.Set", "power", b"", id="authority"),
        pytest.param("net2", "Start", "", b"", id="another-target"),
        pytest.param("work", "property.Set", "memory", b"many", id="no-value"),
    ],
)
def test_nobody_is_asked_about_what_is_refused(
    here: House, target: str, service: str, argument: str, payload: bytes
) -> None:
    assert isinstance(here.calls("bob", target, f"admin.vm.{service}", argument, payload), Failure)
    assert here.user.questions() == []


def test_a_qube_without_a_screen_is_denied(here: House) -> None:
    call(here.daemon.socket, "admin.vm.property.Set", "bob", "guivm", b"")
    try:
        assert denied(here.calls("bob", "work", "admin.vm.CurrentState"))
    finally:
        call(here.daemon.socket, "admin.vm.property.Set", "bob", "guivm", b"dom0")
    assert here.user.questions() == []


def test_a_yes_at_the_policy_socket_is_used_once(here: House) -> None:
    reply = here.asks("bob", "work", "admin.vm.CurrentState+")
    assert "result=allow" in reply.split("\n")
    assert "target=dom0" in reply.split("\n")
    assert "requested_target=work" in reply.split("\n")
    (asked,) = here.user.questions()
    assert asked["targets"] == ["work"]
    assert isinstance(here.comes("bob", "work", "admin.vm.CurrentState"), bytes)
    assert here.user.questions() == []
    here.user.answers = lambda asked: "deny"
    assert denied(here.comes("bob", "work", "admin.vm.CurrentState"))
    assert len(here.user.questions()) == 1


@pytest.mark.parametrize(
    ("source", "target", "service", "argument"),
    [
        pytest.param("bob", "work", "admin.vm.Kill", "", id="service"),
        pytest.param("bob", "net1", "admin.vm.CurrentState", "", id="target"),
        pytest.param("alice", "work", "admin.vm.CurrentState", "", id="source"),
        pytest.param("bob", "work", "admin.vm.tag.Set", "x", id="argument"),
    ],
)
def test_a_yes_is_for_that_call_alone(
    here: House, source: str, target: str, service: str, argument: str
) -> None:
    """A qube gets qrexec to ask about one call, and makes another."""
    assert "result=allow" in here.asks("bob", "work", "admin.vm.CurrentState+")
    here.user.questions()
    here.user.answers = lambda asked: "deny"
    assert denied(here.comes(source, target, service, argument))
    assert isinstance(here.comes("bob", "work", "admin.vm.CurrentState"), bytes)


@pytest.mark.parametrize(
    "more", [{"just_evaluate": "yes"}, {"assume_yes_for_ask": "yes"}], ids=["evaluated", "assumed"]
)
def test_what_was_not_said_by_the_user_is_no_consent(here: House, more: dict[str, str]) -> None:
    here.asks("bob", "work", "admin.vm.CurrentState+", **more)
    assert here.user.questions() == []
    here.user.answers = lambda asked: "deny"
    assert denied(here.comes("bob", "work", "admin.vm.CurrentState"))
    assert len(here.user.questions()) == 1


def test_a_call_with_a_payload_is_asked_about_when_it_has_come(here: House) -> None:
    assert "result=allow" in here.asks("bob", "work", "admin.vm.property.Set+netvm")
    assert here.user.questions() == []
    assert here.comes("bob", "work", "admin.vm.property.Set", "netvm", b"net1") == b""
    (asked,) = here.user.questions()
    assert asked["argument"] == "+netvm = net1"


@pytest.mark.parametrize(
    "service", ["admin.vm.Unknown+", "test.Ask+", "admin.vm.List+"], ids=["unknown", "other", "elsewhere"]
)
def test_what_does_not_come_here_is_asked_about_at_once(here: House, service: str) -> None:
    """Whoever carries it out will not ask."""
    here.write(STOCK + "admin.vm.Unknown * alice @anyvm ask target=dom0\n")
    here.user.answers = lambda asked: "deny"
    assert here.asks("alice", "work", service) == "result=deny"
    assert len(here.user.questions()) == 1
    here.write(STOCK)


def test_the_stock_collection_stays_for_stock_rules(here: House) -> None:
    here.user.answers = lambda asked: "deny"
    here.asks("alice", "work", "admin.vm.List+")
    (asked,) = here.user.questions()
    assert asked["targets"] == ["bob", "net1", "net2", "work"]
    assert asked["argument"] == "+"


def test_a_yes_is_remembered_where_the_rule_says_so(here: House) -> None:
    for _ in range(3):
        assert isinstance(here.calls("bob", "work", "admin.vm.firewall.Reload"), bytes)
        assert "result=allow" in here.asks("bob", "work", "admin.vm.firewall.Reload+")
        assert isinstance(here.comes("bob", "work", "admin.vm.firewall.Reload"), bytes)
    assert len(here.user.questions()) == 1
    # Any change of the policy ends it.
    here.write(STOCK + "test.Other * * @anyvm deny\n")
    here.user.answers = lambda asked: "deny"
    assert denied(here.calls("bob", "work", "admin.vm.firewall.Reload"))
    assert len(here.user.questions()) == 1
    here.write(STOCK)


def test_a_notification_is_sent_where_the_rule_says_so(here: House) -> None:
    here.calls("bob", "work", "admin.vm.feature.Set", "loud", b"1")
    here.user.answers = lambda asked: "deny"
    here.calls("bob", "work", "admin.vm.feature.Set", "loud", b"2")
    eventually(lambda: len(here.user.told) == 2)
    assert [(note["resolution"], note["source"], note["target"]) for note in here.user.told] == [
        ("allow", "bob", "work"),
        ("deny", "bob", "work"),
    ]


def another_policy(here: House) -> None:
    here.write(STOCK + "test.Other * * @anyvm deny\n")


def another_target(here: House) -> None:
    call(here.daemon.socket, "admin.vm.Remove", "work")
    here.daemon.create("work", tags={"work": "his"})


def another_value(here: House) -> None:
    call(here.daemon.socket, "admin.vm.Remove", "net1")
    here.daemon.create("net1", tags={"net1": "net"})
    call(here.daemon.socket, "admin.vm.property.Set", "net1", "provides_network", b"True")


def a_tag_less(here: House) -> None:
    call(here.daemon.socket, "admin.vm.tag.Remove", "work", "his")


@pytest.mark.parametrize("own", [pytest.param(True, id="own-socket"), pytest.param(False, id="dom0")])
@pytest.mark.parametrize("change", [another_policy, another_target, another_value, a_tag_less])
def test_what_changed_while_the_user_thought_was_not_agreed_to(
    tmp_path: Path, change: Callable[[House], None], own: bool
) -> None:
    with house(tmp_path) as here:
        call(here.daemon.socket, "admin.vm.property.Set", "work", "netvm", b"")
        call(here.daemon.socket, "admin.vm.property.Set", "work", "default_dispvm", b"")

        def think(asked: object) -> str:
            change(here)
            return "allow:work"

        here.user.answers = think
        make = here.calls if own else here.comes
        # With a tag less the call is denied by a rule; what was agreed to counts as little then.
        assert isinstance(make("bob", "work", "admin.vm.property.Set", "netvm", b"net1"), Failure)
        properties = call(here.daemon.socket, "admin.vm.property.GetAll", "work").decode()
        assert "netvm default=False type=vm net1" not in properties
        assert len(here.user.questions()) == 1


@pytest.mark.parametrize("change", [another_policy, another_target, a_tag_less])
@pytest.mark.parametrize("late", [pytest.param(False, id="thinking"), pytest.param(True, id="answered")])
def test_what_changed_after_the_policy_socket_asked_was_not_agreed_to(
    tmp_path: Path, change: Callable[[House], None], late: bool
) -> None:
    with house(tmp_path) as here:

        def think(asked: object) -> str:
            if not late:
                change(here)
            return "allow:work"

        here.user.answers = think
        response = here.asks("bob", "work", "admin.vm.Start+")
        assert ("result=allow" in response.split("\n")) is late
        if late:
            change(here)
        here.user.answers = lambda asked: "deny"
        assert denied(here.comes("bob", "work", "admin.vm.Start"))
        assert b"state=Halted" in call(here.daemon.socket, "admin.vm.List", "work")


def test_a_call_is_not_carried_out_for_another_qube_of_that_name(tmp_path: Path) -> None:
    """A qube calls and is asked about; a new one gets its name, and a yes to such a call of its own."""
    with house(tmp_path) as here:
        first = threading.Event()

        def think(asked: object) -> str:
            if first.is_set():
                return "allow:work"
            first.set()
            call(here.daemon.socket, "admin.vm.Remove", "bob")
            here.daemon.create("bob")
            call(here.daemon.socket, "admin.vm.property.Set", "bob", "guivm", b"dom0")
            assert "result=allow" in here.asks("bob", "work", "admin.vm.Start+")
            return "allow:work"

        here.user.answers = think
        assert denied(here.comes("bob", "work", "admin.vm.Start"))
        assert b"state=Halted" in call(here.daemon.socket, "admin.vm.List", "work")


def test_other_services_are_asked_about_anew_as_well(tmp_path: Path) -> None:
    with house(tmp_path) as here:

        def think(asked: object) -> str:
            call(here.daemon.socket, "admin.vm.Remove", "work")
            here.daemon.create("work")
            return "allow:work"

        here.user.answers = think
        assert here.asks("alice", "work", "test.Ask+") == "result=deny"


def test_one_yes_for_each_of_many(here: House) -> None:
    """The same call ten times at once, of which the user allows three."""
    left, lock = [3], threading.Lock()

    def three(asked: object) -> str:
        with lock:
            left[0] -= 1
            return "allow:work" if left[0] >= 0 else "deny"

    here.user.answers = three
    with ThreadPoolExecutor(10) as pool:
        replies = list(
            pool.map(lambda _: here.calls("bob", "work", "admin.vm.feature.Set", "many", b"1"), range(10))
        )
    assert sum(reply == b"" for reply in replies) == 3
    assert len(here.user.questions()) == 10


def test_the_audit_tells_what_the_user_said(here: House) -> None:
    here.calls("bob", "work", "admin.vm.feature.Set", "audited", b"1")
    here.user.answers = lambda asked: "deny"
    here.calls("bob", "work", "admin.vm.feature.Set", "audited", b"1")
    yes, no = [line for line in here.daemon.audit().splitlines() if '"argument": "audited"' in line]
    assert '"decision": "ask", "reason": "the user said yes"' in yes
    assert '"decision": "ask", "reason": "the user was asked: user"' in no
    assert '"outcome": "ok"' in yes
    assert '"outcome": "denied"' in no
