"""Who is let in where, and as whom: the door says it, never the bytes."""

from __future__ import annotations

import grp
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.client import call
from broker.wire import Failure
from tests.broker import other_user
from tests.broker.rig import PATIENCE, Daemon, answer, exchange, listening, serving, take

ALICE_UID, BOB_UID, STRANGER_UID, LOST_UID, CAROL_UID = range(61_001, 61_006)
GROUP = "daemon"
GROUP_ID = grp.getgrnam(GROUP).gr_gid

POLICY = """\
admin.vm.property.Get +name alice alice allow target=dom0
admin.vm.property.Get +name bob bob allow target=dom0
admin.vm.property.Get +name carol carol allow target=dom0
admin.vm.Create.StandaloneVM * bob dom0 allow target=dom0
admin.vm.Remove * alice alice allow target=dom0
admin.vm.property.Get +label @anyvm @anyvm ask
admin.Events * alice @adminvm allow target=dom0
"""
CONFIG = f"""\
socket_group = "{GROUP}"
channels_owner = "{BOB_UID}"

[users]
{ALICE_UID} = "alice"
{BOB_UID} = "bob"
{CAROL_UID} = "carol"
{LOST_UID} = "no-such-qube"
"""

REFUSED = b""


def asks(name: str, source: str = "dom0") -> bytes:
    return f"admin.vm.property.Get+name {source} name {name}\0".encode("ascii")


def tells(name: str) -> bytes:
    return f"0\0default=False type=str {name}".encode("ascii")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if os.geteuid() != 0:
        pytest.skip("not root: no second user to call as, and no group to give sockets to")
    with serving(tmp_path_factory.mktemp("root"), POLICY, CONFIG) as daemon:
        daemon.create("alice", "bob")
        # What the file system keeps out already, the daemon has to keep out by itself.
        for path in (daemon.root / "run").glob("*.sock"):
            path.chmod(0o666)
        for path in (daemon.root / "run/rpc").glob("*.sock"):
            path.chmod(0o666)
        yield daemon


def as_user(path: Path, uid: int, request: bytes, *groups: int) -> bytes:
    return subprocess.run(
        [sys.executable, other_user.__file__, path.parent, path.name, str(uid), *map(str, groups)],
        input=request,
        stdout=subprocess.PIPE,
        check=True,
        timeout=PATIENCE,
    ).stdout


@pytest.mark.parametrize(
    ("uid", "groups", "want"),
    [
        pytest.param(ALICE_UID, (), tells("alice"), id="mapped"),
        pytest.param(STRANGER_UID, (), REFUSED, id="not-mapped"),
        pytest.param(LOST_UID, (), REFUSED, id="mapped-to-no-qube"),
        pytest.param(0, (), REFUSED, id="root"),
        pytest.param(ALICE_UID, (GROUP_ID,), REFUSED, id="mapped-but-of-dom0s-group"),
    ],
)
def test_user_socket(daemon: Daemon, uid: int, groups: tuple[int, ...], want: bytes) -> None:
    assert as_user(daemon.root / "run/user.sock", uid, asks("alice"), *groups) == want


def test_a_user_stays_with_the_very_qube(daemon: Daemon) -> None:
    path = daemon.root / "run/user.sock"
    daemon.create("carol")
    assert as_user(path, CAROL_UID, asks("carol")) == tells("carol")
    call(daemon.socket, "admin.vm.Remove", "carol")
    daemon.create("carol")
    assert as_user(path, CAROL_UID, asks("carol")) == REFUSED


def test_the_name_that_a_user_is_mapped_to_is_dom0s_to_give(daemon: Daemon) -> None:
    payload = b"name=no-such-qube label=red"
    reply = answer(daemon.channel("bob"), "admin.vm.Create.StandaloneVM", payload=payload)
    assert isinstance(reply, Failure)
    assert reply.refused
    payload = b"name=some-other-qube label=red"
    assert answer(daemon.channel("bob"), "admin.vm.Create.StandaloneVM", payload=payload) == b""


@pytest.mark.parametrize("source", ["dom0", "bob", "no-such-qube", "uuid:junk", "$"])
def test_user_socket_does_not_believe_the_source(daemon: Daemon, source: str) -> None:
    path = daemon.root / "run/user.sock"
    assert as_user(path, ALICE_UID, asks("alice", source)) == tells("alice")
    assert as_user(path, ALICE_UID, asks("bob", source)).startswith(b"2\0PermissionDenied\0")


@pytest.mark.parametrize(
    ("name", "uid", "groups", "admitted"),
    [
        pytest.param("qubesd.sock", ALICE_UID, (), False, id="a-user"),
        pytest.param("qubesd.sock", STRANGER_UID, (GROUP_ID,), True, id="of-the-group"),
        pytest.param("qubesd.internal.sock", ALICE_UID, (), False, id="internal"),
        pytest.param("qubesd.misc.sock", ALICE_UID, (), False, id="misc"),
    ],
)
def test_dom0s_sockets_check_the_peer(
    daemon: Daemon, name: str, uid: int, groups: tuple[int, ...], admitted: bool
) -> None:
    reply = as_user(daemon.root / "run" / name, uid, asks("alice"), *groups)
    assert bool(reply) == admitted


@pytest.mark.parametrize(
    ("uid", "want"),
    [
        pytest.param(0, tells("alice"), id="root"),
        pytest.param(BOB_UID, tells("alice"), id="owner-of-the-channels"),
        pytest.param(ALICE_UID, REFUSED, id="somebody-else"),
    ],
)
def test_a_qubes_socket_checks_the_peer(daemon: Daemon, uid: int, want: bytes) -> None:
    assert as_user(daemon.channel("alice"), uid, asks("alice")) == want


@pytest.mark.parametrize("source", ["dom0", "bob", "uuid:00000000-0000-0000-0000-000000000000", "\x01"])
def test_a_qubes_socket_does_not_believe_the_source(daemon: Daemon, source: str) -> None:
    path = daemon.channel("alice")
    assert exchange(path, asks("alice", source)) == tells("alice")
    assert exchange(path, asks("bob", source)).startswith(b"2\0PermissionDenied\0")


def test_dom0s_socket_judges_the_source_that_it_is_told(daemon: Daemon) -> None:
    assert exchange(daemon.socket, asks("alice", "alice")) == tells("alice")
    assert exchange(daemon.socket, asks("bob", "alice")).startswith(b"2\0PermissionDenied\0")
    assert exchange(daemon.socket, asks("bob", "dom0")) == tells("bob")


def test_the_owner_of_the_channels_owns_their_files(daemon: Daemon) -> None:
    assert daemon.channel("alice").stat().st_uid == BOB_UID


@pytest.mark.parametrize(
    ("trust", "want"),
    [pytest.param(False, "PermissionDenied", id="not-trusted"), pytest.param(True, None, id="trusted")],
)
def test_an_ask_where_nobody_can_be_asked_is_a_denial_unless_somebody_in_front_has_asked(
    tmp_path: Path, trust: bool, want: str | None
) -> None:
    policy = "admin.vm.property.Get * alice alice ask target=dom0\n"
    with serving(tmp_path, policy, f"trust_qrexec_consent = {str(trust).lower()}\n") as daemon:
        daemon.create("alice")
        reply = answer(daemon.socket, "admin.vm.property.Get", "alice", "label", source="alice")
        assert (reply.kind if isinstance(reply, Failure) else None) == want
        # Nobody stands in front of a qube's own socket.
        own = answer(daemon.channel("alice"), "admin.vm.property.Get", "alice", "label")
        assert isinstance(own, Failure)


def test_a_qubes_socket_comes_and_goes_with_it(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY) as daemon:
        assert not list((tmp_path / "run/rpc").iterdir())
        daemon.create("alice")
        path = daemon.channel("alice")
        eventually(path.exists)
        with listening(path) as stream:
            call(daemon.socket, "admin.vm.Remove", "alice")
            eventually(lambda: not path.exists())
            stream.settimeout(PATIENCE)
            assert rest(stream) == b""
        daemon.create("alice")
        eventually(daemon.channel("alice").exists)
        assert daemon.channel("alice") != path


def test_the_host_sleeps_over_the_internal_socket_alone(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY) as daemon:
        daemon.create("alice")
        call(daemon.socket, "admin.vm.Start", "alice")
        for service, state in (("internal.SuspendPre", b"Paused"), ("internal.SuspendPost", b"Running")):
            refused = answer(daemon.socket, service)
            assert isinstance(refused, Failure)
            assert refused.kind == "ProtocolError"
            assert answer(daemon.root / "run/qubesd.internal.sock", service) == b""
            assert state in call(daemon.socket, "admin.vm.CurrentState", "alice")
        call(daemon.socket, "admin.vm.Kill", "alice")


def test_a_stream_ends_with_its_caller_and_not_for_its_successor(tmp_path: Path) -> None:
    """Names outlive qubes: whoever gets the name next gets no stream of the one before."""
    with serving(tmp_path, POLICY) as daemon:
        daemon.create("alice")
        with listening(daemon.socket, source="alice") as stream:
            call(daemon.socket, "admin.vm.Remove", "alice")
            stream.settimeout(PATIENCE)
            assert rest(stream) == b""


def test_a_stream_of_a_qube_is_silent_when_another_has_its_name(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY) as daemon:
        daemon.create("alice")
        with listening(daemon.socket, "alice") as stream, listening(daemon.socket) as all_events:
            call(daemon.socket, "admin.vm.Remove", "alice")
            daemon.create("alice")
            call(daemon.socket, "admin.vm.tag.Set", "alice", "new")
            all_events.settimeout(PATIENCE)
            data = b""
            while b"domain-tag-add:new" not in data:
                data += take(all_events, 1)
            assert b"domain-remove-from-disk" not in data
            last = b"1\0alice\0domain-remove-from-disk\0\0"
            assert take(stream, len(last)) == last
            stream.settimeout(0.3)
            with pytest.raises(TimeoutError):
                stream.recv(1)


def rest(stream: socket.socket) -> bytes:
    """What comes to the end of a stream; it may be reset."""
    data = b""
    try:
        while more := stream.recv(65_536):
            data += more
    except ConnectionResetError:
        pass
    return data


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
