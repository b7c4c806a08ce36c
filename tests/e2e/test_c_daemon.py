"""What a C qrexec daemon makes of our sockets: a program in C asks and carries out as the stock one does.

A reply that it finds malformed, or a connection that breaks, would not deny a call: the daemon would go on to
its fallback. So each test also holds us to this: while a daemon is up, the fallback is never used.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from broker.client import call
from broker.wire import Failure
from tests.broker.rig import PATIENCE, ROOT, answer
from tests.c.dom0 import TOGETHER, Dom0, answered, refused, rows
from tests.c.stock import Trace, script, traced

LONG = "q" * 70
ALLOWED_BOB = b"target=bob\n"


@pytest.mark.parametrize(
    ("target", "service", "header", "content"),
    [
        pytest.param(
            "dom0", "admin.vm.List", b"admin.vm.List+ alice name dom0", b"dom0 class=AdminVM ", id="dom0"
        ),
        pytest.param(
            "@adminvm",
            "admin.vm.List",
            b"admin.vm.List+ alice keyword adminvm",
            b"dom0 class=AdminVM ",
            id="keyword",
        ),
        pytest.param(
            "$adminvm", "admin.vm.List+", b"admin.vm.List+ alice keyword adminvm", b"dom0 ", id="dollar"
        ),
        pytest.param(
            "bob",
            "admin.vm.property.Get+label",
            b"admin.vm.property.Get+label alice name bob",
            b"default=False type=label red",
            id="another-qube",
        ),
    ],
)
def test_an_allowed_call_gets_its_answer_of_qubesd(
    dom0: Dom0, target: str, service: str, header: bytes, content: bytes
) -> None:
    trace = dom0.stock.call("alice", target, service)
    assert rows(trace).startswith(content)
    assert trace.words("service") == [(header,)]


@pytest.mark.parametrize(
    ("target", "service", "argument"),
    [
        ("dom0", "admin.vm.List", ""),
        ("alice", "admin.vm.property.Get", "memory"),
        ("bob", "admin.vm.property.Get", "no-such"),
    ],
)
def test_a_qubes_own_socket_gives_the_same_answer(
    dom0: Dom0, target: str, service: str, argument: str
) -> None:
    over_qrexec = answered(dom0.stock.call("alice", target, f"{service}+{argument}"))
    assert over_qrexec == answer(dom0.daemon.channel("alice"), service, target, argument)


def test_a_target_that_only_policy_knows_as_dom0_is_no_destination(dom0: Dom0) -> None:
    """``@default`` reaches qubesd as a keyword, of which it knows one other only: closed without a byte."""
    trace = dom0.stock.call("alice", "", "admin.vm.List")
    assert trace.words("service") == [(b"admin.vm.List+ alice keyword default",)]
    assert (trace.status, trace.output) == (0, b"")


@pytest.mark.parametrize(
    ("source", "target", "service"),
    [
        pytest.param("bob", "dom0", "admin.vm.List", id="no-rule"),
        pytest.param("alice", "bob", "admin.vm.List", id="another-target"),
        pytest.param("alice", "no-such-qube", "test.Run", id="unknown-target"),
        pytest.param("nobody", "bob", "test.Run", id="unknown-source"),
        pytest.param("alice", "alice", "test.Ask", id="itself"),
        pytest.param("alice", "@dispvm:bob", "test.Dispose", id="no-template-of-disposables"),
        pytest.param("alice", "@tag:x", "test.Ask", id="no-target"),
        pytest.param("alice", "bob", "", id="empty-service"),
        pytest.param("alice", "bob", "+", id="service-of-no-name"),
        pytest.param("alice", "bob", "a.B+x", id="another-argument"),
        pytest.param("alice", "bob", "test.NoStart", id="halted-and-not-to-be-started"),
    ],
)
def test_a_denied_call_is_refused_by_the_reply(dom0: Dom0, source: str, target: str, service: str) -> None:
    refused(dom0.stock.call(source, target, service))


@pytest.mark.parametrize(
    ("target", "service", "command"),
    [
        pytest.param("bob", "a.B", b"DEFAULT:QUBESRPC a.B alice", id="no-argument"),
        pytest.param("bob", "a.B+", b"DEFAULT:QUBESRPC a.B+ alice", id="empty-argument"),
        pytest.param("bob", "a.B+x+y", b"DEFAULT:QUBESRPC a.B+x+y alice", id="plus-in-the-argument"),
        pytest.param("bob", b"test.Run+\xc3\xa9 /\n", b"DEFAULT:QUBESRPC test.Run+_____ alice", id="cleaned"),
        pytest.param("bob", "test.Root", b"root:QUBESRPC test.Root alice", id="user"),
        pytest.param("", "test.Default", b"DEFAULT:QUBESRPC test.Default alice", id="empty-target"),
        pytest.param("@default", "test.Default", b"DEFAULT:QUBESRPC test.Default alice", id="default"),
        pytest.param("$default", "test.Default", b"DEFAULT:QUBESRPC test.Default alice", id="dollar-default"),
    ],
)
def test_a_call_to_a_qube_starts_it_and_is_passed_on(
    dom0: Dom0, target: str, service: str | bytes, command: bytes
) -> None:
    uuid = call(dom0.daemon.socket, "admin.vm.property.Get", "bob", "uuid").split()[-1].decode("ascii")
    trace = dom0.stock.call("alice", target, service)
    assert trace.words("admin") == [(f"admin.vm.Start+ dom0 name uuid:{uuid}".encode("ascii"), b"")]
    assert trace.words("called") == [(f"uuid:{uuid}".encode("ascii"), command)]
    assert (trace.status, trace.names) == (0, ["reply", "allowed", "admin", "answer", "called"])
    assert call(dom0.daemon.socket, "admin.vm.CurrentState", "bob").endswith(b"power_state=Running")
    running = dom0.stock.call("alice", target, service)
    assert (running.status, running.words("answer")) == (0, [(b"0\0",)])
    call(dom0.daemon.socket, "admin.vm.Kill", "bob")


@pytest.mark.parametrize("length", [100, 3_000, 70_000])
def test_a_long_service_is_answered(dom0: Dom0, length: int) -> None:
    """Longer than a name may be, and longer than the daemon sends: of a reply only what fits is taken."""
    asked = [("alice", "", "bob", "test.Long+" + length * "x")]
    trace = dom0.stock.ask(asked)
    assert trace.names == ["reply", "allowed"]
    assert ALLOWED_BOB in trace.reply
    assert dom0.stock.ask(asked, "-o") == trace


def test_a_name_is_cut_before_it_is_judged(dom0: Dom0) -> None:
    """So a name that begins as another of 63 bytes is that one; ours have 31 at most, and it is unknown."""
    refused(dom0.stock.call("alice", "bob" + LONG, "test.Run"))
    refused(dom0.stock.call("alice", LONG + "bob", "test.Run"))


def test_a_disposable_is_made_started_called_and_killed(dom0: Dom0, tmp_path: Path) -> None:
    """While it is called it is there and runs; after the call there is nothing left of it."""
    client = tmp_path / "client"
    seen = (
        "import sys; from broker.client import call;"
        "print('seen', call(sys.argv[1], 'admin.vm.CurrentState', sys.argv[2]).decode(), sep='\\t')"
    )
    command = shlex.join([sys.executable, "-c", seen, str(dom0.daemon.socket)])
    script(client, f'cd {shlex.quote(str(ROOT))} && exec {command} "$@"')
    before = call(dom0.daemon.socket, "admin.vm.List")
    trace = replace(dom0.stock, client=client).call("alice", "@dispvm", "test.Dispose+x")
    made = trace.words("answer")[0][0].removeprefix(b"0\0")
    assert made.startswith(b"uuid:")
    base = call(dom0.daemon.socket, "admin.vm.property.Get", "maker", "uuid").split()[-1]
    assert trace.words("admin") == [
        (b"admin.vm.CreateDisposable+ dom0 name uuid:" + base, b"uuid"),
        (b"admin.vm.Start+ dom0 name " + made, b""),
        (b"admin.vm.Kill+ dom0 name " + made, b""),
    ]
    assert trace.words("answer")[1:] == [(b"0\0",), (b"0\0",)]
    assert trace.words("called") == [(made, b"DEFAULT:QUBESRPC test.Dispose+x alice")]
    assert trace.words("seen")[0][0].endswith(b"power_state=Running")
    assert trace.names[-3:] == ["seen", "admin", "answer"]
    assert trace.status == 0
    assert call(dom0.daemon.socket, "admin.vm.List") == before


def test_a_relay_calls_for_its_remote_qube(dom0: Dom0) -> None:
    trace = dom0.stock.call("alice", "bob", "test.Relay", requested="far")
    assert trace.words("called")[0][1] == b"DEFAULT:QUBESRPC test.Relay far"
    assert b"\npolicy_source=far" in trace.reply
    for requested in ("bob", "no-such-qube", "dom0"):
        refused(dom0.stock.call("alice", "bob", "test.Relay", requested=requested))
    refused(dom0.stock.call("alice", "bob", "test.Relay"))


def test_a_remote_qube_is_called_by_its_relay(dom0: Dom0) -> None:
    refused(dom0.stock.call("bob", "far", "test.Far"))
    trace = dom0.stock.call("alice", "far", "test.Far+x")
    assert trace.words("called")[0][1] == b"DEFAULT:QUBESRPC test.Transport+far+test.Far+x alice"


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        pytest.param(b"allow:bob", True, id="allow"),
        pytest.param(b"deny", False, id="deny"),
        pytest.param(b"allow:base2", False, id="no-choice"),
        pytest.param(b"allow:bob\n", False, id="line-end"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"allow:bob\ntarget=dom0", False, id="injection"),
        pytest.param(b"x" * 100_000, False, id="flood"),
    ],
)
def test_a_question_waits_for_the_user(dom0: Dom0, answer: bytes, allowed: bool) -> None:
    """Longer than anything else takes; the others are served meanwhile, and the daemon has no reason to
    use its fallback."""
    others: list[Trace] = []
    dom0.agent.answer, dom0.agent.asked = answer, []
    dom0.agent.think = lambda: others.append(dom0.stock.call("alice", "dom0", "admin.vm.List"))
    trace = dom0.stock.call("alice", "bob", "test.Ask+x")
    if allowed:
        assert ALLOWED_BOB in trace.reply
        assert trace.words("called")[0][1] == b"DEFAULT:QUBESRPC test.Ask+x alice"
    else:
        refused(trace)
    assert rows(others[0])
    (asked,) = dom0.agent.asked
    header, _, message = asked.partition(b"\0")
    assert header == b"policy.Ask dom0 name dom0"
    assert "bob" in json.loads(message)["targets"]


def test_what_the_user_allowed_is_carried_out(dom0: Dom0) -> None:
    """Asked once, by whoever answers on the policy socket; qubesd knows of it, or trusts the asker."""
    dom0.agent.answer, dom0.agent.think, dom0.agent.asked = b"allow:dom0", lambda: None, []
    found = answered(dom0.stock.call("alice", "bob", "admin.vm.CurrentState"))
    assert isinstance(found, bytes)
    assert b"power_state=" in found
    (asked,) = dom0.agent.asked
    shown = json.loads(asked.partition(b"\0")[2])["argument"]
    assert shown == ("+ of bob" if dom0.kind == TOGETHER else "+")


def test_a_question_about_a_payload_waits_for_it(dom0: Dom0) -> None:
    dom0.agent.answer, dom0.agent.think, dom0.agent.asked = b"allow:dom0", lambda: None, []
    found = answered(dom0.stock.call("alice", "bob", "admin.vm.feature.Set+asked", payload=b"yes"))
    assert found == b""
    (asked,) = dom0.agent.asked
    shown = json.loads(asked.partition(b"\0")[2])["argument"]
    assert shown == ("+asked of bob = yes" if dom0.kind == TOGETHER else "+asked")


def test_a_payload_comes_whole_and_the_answer_after_it(dom0: Dom0) -> None:
    value = bytes(range(32, 127)) * 500
    assert answered(dom0.stock.call("alice", "alice", "admin.vm.feature.Set+big", payload=value)) == b""
    assert answered(dom0.stock.call("alice", "alice", "admin.vm.feature.Get+big")) == value


def test_more_than_a_request_may_have_ends_without_an_answer(dom0: Dom0) -> None:
    trace = dom0.stock.call("alice", "alice", "admin.vm.feature.Set+big", payload=b"x" * 1_000_000)
    assert trace.output == b""
    assert "fallback" not in trace.names


def test_a_caller_that_keeps_its_input_open_waits(dom0: Dom0) -> None:
    """The answer comes after the half-close and not before."""
    command = dom0.stock.command("--", "alice", "", "dom0", "admin.vm.List")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        steps = [process.stdout.readline().split(b"\t")[0].strip() for _ in range(3)]
        assert steps == [b"reply", b"allowed", b"service"]
        assert rows(dom0.stock.call("alice", "dom0", "admin.vm.List"))
        process.stdin.close()
        rest = process.stdout.read()
        assert process.wait(PATIENCE) == 0
    assert traced(0, rest).output.startswith(b"0\0dom0 class=AdminVM ")


@pytest.mark.parametrize("target", ["dom0", "@adminvm"])
def test_what_a_guest_announces_gets_to_the_misc_socket(dom0: Dom0, target: str) -> None:
    """In the name of the qube that called, whatever it says; a qube that no rule lets is refused."""
    call(dom0.daemon.socket, "admin.vm.Start", "alice")
    try:
        place = dom0.stock.root / "run/qubesdb/alice"
        for key, value in (("features-request/os", "Linux"), ("qubes-tools/gui", "1")):
            (place / key).parent.mkdir(parents=True, exist_ok=True)
            (place / key).write_text(value)
        for service, payload in (
            ("qubes.FeaturesRequest", b""),
            ("qubes.NotifyTools", b""),
            ("qubes.NotifyUpdates", b"3\n"),
        ):
            refused(dom0.stock.call("bob", target, service, payload=payload))
            trace = dom0.stock.call("alice", target, service, payload=payload)
            assert answered(trace) == b""
            words = "keyword adminvm" if target == "@adminvm" else "name dom0"
            assert trace.words("service") == [(f"{service}+ alice {words}".encode("ascii"),)]
        features = call(dom0.daemon.socket, "admin.vm.feature.List", "alice").split()
        assert {b"os", b"gui", b"updates-available"} <= set(features)
        assert answered(dom0.stock.call("alice", target, "qubes.NotifyUpdates", payload=b"many")) == Failure(
            "ProtocolError", "expected a number of updates, at most 9 digits"
        )
    finally:
        call(dom0.daemon.socket, "admin.vm.Kill", "alice")
        for name in ("os", "gui", "updates-available", "last-updates-check"):
            call(dom0.daemon.socket, "admin.vm.feature.Remove", "alice", name)
