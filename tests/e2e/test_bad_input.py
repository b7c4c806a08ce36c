"""Whatever comes in through any socket: a clear answer or a clean close, nothing lost, nobody else harmed."""

from __future__ import annotations

import random
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.client import connect
from broker.connection import MAX_BEHIND
from broker.serve import MAX_CONNECTIONS
from broker.wire import MAX_REQUEST, Failure
from tests.broker.rig import PATIENCE, Daemon, answer, errors, exchange, listening, serving

POLICY = """\
admin.vm.List * alice @adminvm allow target=dom0
admin.vm.List * alice alice allow target=dom0
admin.Events * alice @adminvm allow target=dom0
admin.Events * alice alice allow target=dom0
admin.vm.feature.Set * alice alice allow target=dom0
no.such.Service * alice @adminvm allow target=dom0
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("root"), POLICY) as daemon:
        daemon.create("alice", "bob", "other")
        yield daemon


@pytest.fixture(params=["qubesd", "qubesd.internal", "qubesd.misc", "rpc"])
def door(request: pytest.FixtureRequest, daemon: Daemon) -> Path:
    """Each socket that a process of ours gets through."""
    if request.param == "rpc":
        return daemon.channel("alice")
    return daemon.root / f"run/{request.param}.sock"


def works(daemon: Daemon) -> None:
    """dom0 and another caller are answered as ever."""
    assert exchange(daemon.socket, b"admin.vm.List+ dom0 name alice\0").startswith(b"0\0alice class=")
    assert answer(daemon.channel("bob"), "admin.vm.List") != b""


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0", id="a-nul"),
        pytest.param(b"admin.vm.List+ dom0 name dom0", id="no-nul"),
        pytest.param(b"admin.vm.List+ dom0 dom0\0", id="three-words"),
        pytest.param(b"admin.vm.List+ dom0 foo dom0\0", id="unknown-kind"),
        pytest.param(b"admin.vm.List+ dom0 keyword dispvm\0", id="other-keyword"),
        pytest.param("admin.vm.tag.Get+é dom0 name dom0\0".encode(), id="not-ascii"),
        pytest.param(b"a" * MAX_REQUEST, id="all-header"),
        pytest.param(b"admin.vm.List+ dom0 name dom0\0" + bytes(MAX_REQUEST), id="too-long"),
        pytest.param(random.Random(1).randbytes(20_000), id="garbage"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="http"),
    ],
)
def test_what_is_no_request_is_closed_without_a_byte(daemon: Daemon, door: Path, data: bytes) -> None:
    assert exchange(door, data) == b""
    works(daemon)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.tuples(
        st.sampled_from(
            ["admin.vm.List", "admin.vm.Create.AppVM", "admin.vm.tag.Set", "a" * 300, "", "%s%n"]
        ),
        st.text(st.characters(min_codepoint=1, max_codepoint=126), max_size=20),
        st.sampled_from(["dom0", "alice", "nobody", "uuid:x", "@adminvm", "$x"]),
        st.text(st.characters(min_codepoint=1, max_codepoint=126), max_size=20),
        st.binary(max_size=60),
    ).map(lambda words: f"{words[0]}+{words[1]} {words[2]} name {words[3]}\0".encode("ascii") + words[4])
)
def test_any_bytes_get_one_whole_reply_or_none(daemon: Daemon, door: Path, data: bytes) -> None:
    reply = exchange(door, data)
    assert reply[:2] in (b"", b"0\0", b"2\0")
    if reply.startswith(b"2\0"):
        assert reply.count(b"\0") == 4


@pytest.mark.parametrize(
    ("service", "target", "want"),
    [
        pytest.param("no.such.Service", "dom0", "ProtocolError", id="unknown-and-allowed"),
        pytest.param("no.other.Service", "dom0", "PermissionDenied", id="unknown-and-not-allowed"),
        pytest.param("admin.vm.List", "no-such-qube", "PermissionDenied", id="unknown-qube"),
        pytest.param("admin.vm.List", "", "PermissionDenied", id="no-target"),
        pytest.param("admin.vm.List", "@dispvm", "PermissionDenied", id="keyword-as-a-name"),
        pytest.param("admin.vm.List", "a b", "PermissionDenied", id="blank-in-the-target"),
        pytest.param("internal.GetSystemInfo", "dom0", "PermissionDenied", id="internal"),
    ],
)
def test_a_judged_caller_learns_nothing_before_the_policy_spoke(
    daemon: Daemon, service: str, target: str, want: str
) -> None:
    reply = answer(daemon.channel("alice"), service, target)
    assert isinstance(reply, Failure)
    assert reply.kind == want


@pytest.mark.parametrize(
    ("request_", "want"),
    [
        pytest.param(b"admin.vm.List dom0 name a b\0", "QubesValueError", id="blank-in-the-target"),
        pytest.param(b"admin.vm.List dom0 name \0", "QubesValueError", id="empty-target"),
        pytest.param(b"admin.vm.List dom0 name $x\0", "QubesValueError", id="dollar"),
        pytest.param(b"admin.vm.List dom0 name uuid:x\0", "QubesVMInvalidUUIDError", id="bad-uuid"),
        pytest.param(b"admin.vm.List dom0 name nobody\0", "QubesVMNotFoundError", id="unknown-target"),
        pytest.param(b"admin.vm.List nobody name alice\0", "QubesVMNotFoundError", id="unknown-source"),
        pytest.param(b"no.such nobody name nobody\0", "QubesVMNotFoundError", id="names-before-method"),
        pytest.param(b"no.such dom0 name nobody\0", "QubesVMNotFoundError", id="target-before-method"),
        pytest.param(b"no.such dom0 name dom0\0", "ProtocolError", id="unknown-method"),
        pytest.param(b"internal.GetSystemInfo dom0 name dom0\0", "ProtocolError", id="internal-method"),
        pytest.param(b"admin.vm.List+x dom0 name dom0\0", "ProtocolError", id="unexpected-argument"),
        pytest.param(b"admin.vm.List dom0 name dom0\0x", "ProtocolError", id="unexpected-payload"),
        pytest.param(b"admin.label.List dom0 name alice\0", "ProtocolError", id="wrong-destination"),
    ],
)
def test_dom0_is_told_the_first_thing_that_is_wrong(daemon: Daemon, request_: bytes, want: str) -> None:
    assert exchange(daemon.socket, request_).split(b"\0")[:2] == [b"2", want.encode("ascii")]


def test_the_other_sockets_of_dom0_have_their_own_calls(daemon: Daemon) -> None:
    internal, misc = (daemon.root / f"run/qubesd.{name}.sock" for name in ("internal", "misc"))
    assert isinstance(answer(internal, "internal.GetSystemInfo"), bytes)
    for path, service in (
        (internal, "admin.vm.List"),
        (misc, "admin.vm.List"),
        (misc, "internal.GetSystemInfo"),
    ):
        reply = answer(path, service)
        assert isinstance(reply, Failure)
        assert reply.kind == "ProtocolError"


@pytest.mark.parametrize(
    "request_", [b"admin.vm.List+ dom0 name dom0\0", b"admin.Events+ dom0 name dom0\0", b"adm"]
)
def test_without_an_end_of_the_request_nothing_is_said(daemon: Daemon, door: Path, request_: bytes) -> None:
    with connect(door) as silent:
        silent.sendall(request_)
        silent.settimeout(0.3)
        with pytest.raises(TimeoutError):
            silent.recv(1)
        works(daemon)


def test_a_request_may_come_byte_by_byte(daemon: Daemon) -> None:
    with connect(daemon.channel("alice"), PATIENCE) as slow:
        for byte in b"admin.vm.List+ dom0 name alice\0":
            slow.sendall(bytes((byte,)))
            works(daemon)
        slow.shutdown(socket.SHUT_WR)
        assert slow.recv(100).startswith(b"0\0alice ")


def test_half_a_request_and_gone(daemon: Daemon, door: Path) -> None:
    for length in (0, 5, 38):
        connect(door).close()
        with connect(door) as gone:
            gone.sendall(b"admin.vm.feature.Set+x dom0 name alice\0value"[:length])
    works(daemon)
    assert answer(daemon.socket, "admin.vm.feature.List", "alice") == b""


def test_a_change_is_made_though_its_caller_is_gone(daemon: Daemon) -> None:
    with connect(daemon.channel("alice")) as gone:
        gone.sendall(b"admin.vm.feature.Set+made dom0 name alice\x00value")
    deadline = time.monotonic() + PATIENCE
    while answer(daemon.socket, "admin.vm.feature.Get", "alice", "made") != b"value":
        assert time.monotonic() < deadline
    answer(daemon.socket, "admin.vm.feature.Remove", "alice", "made")


def test_one_caller_has_so_many_connections_and_no_more(daemon: Daemon) -> None:
    path = daemon.channel("other")
    with ExitStack() as held:
        silent = [held.enter_context(connect(path, PATIENCE)) for _ in range(MAX_CONNECTIONS)]
        with connect(path, PATIENCE) as refused:
            assert refused.recv(1) == b""
        works(daemon)
        silent[0].sendall(b"admin.vm.List+ dom0 name dom0\0")
        silent[0].shutdown(socket.SHUT_WR)
        assert silent[0].recv(10).startswith(b"2\0")
    assert isinstance(until_admitted(path), Failure)


def test_on_dom0s_socket_each_source_is_counted_by_itself(daemon: Daemon) -> None:
    """A qube whose calls the qrexec daemon passes on cannot use up dom0's connections."""
    with ExitStack() as held:
        for _ in range(MAX_CONNECTIONS):
            held.enter_context(connect(daemon.socket, PATIENCE)).sendall(b"admin.vm.List+ other name dom0\0")
        with connect(daemon.socket, PATIENCE) as refused:
            refused.sendall(b"admin.vm.List+ other name dom0\0")
            assert refused.recv(1) == b""
        works(daemon)


def until_admitted(path: Path) -> bytes | Failure:
    """The daemon notices closed connections in its own time."""
    deadline = time.monotonic() + PATIENCE
    while True:
        data = exchange(path, b"admin.vm.List+ dom0 name dom0\0")
        if data:
            return Failure("PermissionDenied", data.decode("ascii")) if data.startswith(b"2\0") else data
        assert time.monotonic() < deadline


def test_a_listener_that_does_not_read_is_dropped(daemon: Daemon) -> None:
    with listening(daemon.channel("alice"), "alice") as lazy, listening(daemon.socket) as eager:
        eager.settimeout(PATIENCE)
        value = b"v" * 30_000
        sent = 0
        while sent < 4 * MAX_BEHIND:
            assert answer(daemon.socket, "admin.vm.feature.Set", "alice", "big", value) == b""
            sent += 2 * len(value)
            while len(eager.recv(65_536)) == 65_536:
                pass
        lazy.settimeout(PATIENCE)
        received = 0
        try:
            while data := lazy.recv(65_536):
                received += len(data)
        except ConnectionResetError:
            pass
        assert received < 3 * MAX_BEHIND
    works(daemon)


def test_a_stream_whose_reader_is_gone_is_dropped_at_once(daemon: Daemon) -> None:
    """Without waiting for an event: the connections are free again."""
    path = daemon.channel("alice")
    for _ in range(2 * MAX_CONNECTIONS):
        with listening(path, "alice"):
            pass
    works(daemon)


def test_bytes_of_a_caller_do_no_harm_in_the_audit(daemon: Daemon) -> None:
    hostile = b'x"\x1b[2J\x7f\n{"forged":1}'
    exchange(
        daemon.channel("alice"), b"admin.vm.tag.Get+" + hostile.replace(b" ", b"") + b" dom0 name dom0\0"
    )
    deadline = time.monotonic() + PATIENCE
    while "forged" not in daemon.audit():
        assert time.monotonic() < deadline
    line = next(line for line in daemon.audit().splitlines() if "forged" in line)
    assert '\\"\\u001b[2J\\u007f\\n{\\"forged\\":1}' in line


def test_without_descriptors_it_waits_and_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY) as daemon, ExitStack() as held:
        used = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
        limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (used + 2, limits[1]))
        connections = [held.enter_context(connect(daemon.socket, PATIENCE)) for _ in range(6)]
        while "no connection can be accepted" not in errors(tmp_path):
            assert daemon.process.poll() is None
            time.sleep(0.01)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
        for connection in connections:
            connection.sendall(b"admin.vm.List dom0 name dom0\0")
            connection.shutdown(socket.SHUT_WR)
        for connection in connections:
            assert connection.recv(100).startswith(b"0\0dom0 ")
