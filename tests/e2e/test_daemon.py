"""The daemon as its operator meets it: starting, stopping, what is broken, and what it then says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker.client import call, connect
from broker.wire import Failure
from tests.broker.rig import (
    PATIENCE,
    Daemon,
    answer,
    errors,
    exchange,
    lay_out,
    serving,
    start,
    wait_until_served,
)

ALLOW = (
    "admin.vm.List * alice @adminvm allow target=dom0\nadmin.vm.List * alice @tag:seen allow target=dom0\n"
)
BROKEN = "admin.vm.List * alice @adminvm alow\n"


def test_an_empty_directory_becomes_an_empty_system(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_until_served(tmp_path, process)
    path = tmp_path / "run/qubesd.sock"
    assert call(path, "admin.vm.List").count(b"\n") == 1
    assert call(path, "admin.property.Get", argument="default_kernel") == (
        b"default=False type=str 0-placeholder"
    )
    assert (tmp_path / "etc/qubes/policy.d/90-admin-default.policy").is_file()
    assert sorted(one.name for one in (tmp_path / "run").iterdir()) == [
        "qubes", "qubesd.internal.sock", "qubesd.misc.sock", "qubesd.sock", "qubesdb", "rpc", "user.sock",
    ]  # fmt: skip
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert not list((tmp_path / "run").glob("*.sock"))


def test_what_was_made_is_there_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path, ALLOW) as daemon:
        daemon.create("alice", tags={"alice": "seen"})
        before = call(daemon.socket, "admin.vm.List")
    with serving(tmp_path, ALLOW) as daemon:
        assert call(daemon.socket, "admin.vm.List") == before
        assert b"alice" in call(daemon.channel("alice"), "admin.vm.List")


def test_after_a_kill_stale_sockets_are_replaced(tmp_path: Path) -> None:
    lay_out(tmp_path, ALLOW)
    process = start(tmp_path)
    wait_until_served(tmp_path, process)
    Daemon(tmp_path, process).create("alice", "gone")
    process.kill()
    process.wait()
    stale = tmp_path / "run/rpc/00000000-0000-4000-8000-000000000000.sock"
    _leave(stale)
    (tmp_path / "run/qubesd.sock").unlink()
    with serving(tmp_path, ALLOW) as daemon:
        assert answer(daemon.channel("alice"), "admin.vm.List") == (
            b"dom0 class=AdminVM state=Running uuid=00000000-0000-0000-0000-000000000000\n"
        )
        assert not stale.exists()


def _leave(path: Path) -> None:
    """A socket that nobody answers on, as a killed daemon leaves it."""
    with socket.socket(socket.AF_UNIX) as gone:
        folder = os.open(path.parent, os.O_PATH)
        gone.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def test_a_second_daemon_on_the_same_root_refuses(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        second = start(tmp_path)
        assert second.wait(PATIENCE) == 1
        assert "another daemon answers on this socket" in errors(tmp_path)
        (tmp_path / "run/qubesd.sock").rename(tmp_path / "run/hidden")
        third = start(tmp_path)
        assert third.wait(PATIENCE) == 1
        assert "held by another process" in errors(tmp_path)
        (tmp_path / "run/hidden").rename(daemon.socket)
        assert answer(daemon.socket, "admin.vm.List") != b""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("<qubes><labels>", "qubes.xml:", id="cut-off"),
        pytest.param("not xml", "qubes.xml:", id="no-xml"),
        pytest.param('<qubes version="99"/>', "qubes.xml:", id="unknown-version"),
        pytest.param("", "qubes.xml", id="empty"),
    ],
)
def test_a_damaged_store_is_named_and_not_touched(tmp_path: Path, content: str, message: str) -> None:
    store = tmp_path / "var/lib/qubes/qubes.xml"
    store.parent.mkdir(parents=True)
    store.write_text(content)
    process = start(tmp_path)
    assert process.wait(PATIENCE) == 1
    assert message in errors(tmp_path)
    assert "Traceback" not in errors(tmp_path)
    assert store.read_text() == content
    assert not (tmp_path / "run/qubesd.sock").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param("visibility = 1\n", "qubesd.toml:1: ", id="wrong-type"),
        pytest.param("\nsocket_group = 'no-such-group'\n", "no group 'no-such-group'", id="no-such-group"),
        pytest.param("hypervisor = 'qemu'\n", "qemu", id="driver-to-come"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(tmp_path: Path, config: str, message: str) -> None:
    lay_out(tmp_path, "", config)
    assert start(tmp_path).wait(PATIENCE) == 1
    assert message in errors(tmp_path)
    assert "Traceback" not in errors(tmp_path)


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"\0qubesd-test-{os.getpid()}"
        manager.bind(address)
        manager.settimeout(PATIENCE)
        with serving(tmp_path, environment={"NOTIFY_SOCKET": "@" + address[1:]}):
            assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"STOPPING=1"


def test_with_a_broken_policy_dom0_works_and_every_judged_call_is_denied(tmp_path: Path) -> None:
    with serving(tmp_path, BROKEN) as daemon:
        daemon.create("alice")
        reply = answer(daemon.channel("alice"), "admin.vm.List")
        assert isinstance(reply, Failure)
        assert reply.message == "denied by policy, record 1"
        place = "10-test.policy:1: column 32: "
        assert place in errors(tmp_path)
        record = json.loads(daemon.audit().splitlines()[-1])
        assert (record["caller"], record["decision"]) == ("alice", "deny")
        assert place in record["reason"]


@pytest.mark.parametrize(
    ("config", "want"),
    [
        pytest.param("", Failure("PermissionDenied", "denied by policy, record 2"), id="deny"),
        pytest.param('on_error = "last-good"\n', b"dom0 class=", id="last-good"),
    ],
)
def test_a_reload_takes_the_policy_as_it_is(tmp_path: Path, config: str, want: bytes | Failure) -> None:
    with serving(tmp_path, ALLOW, config) as daemon:
        daemon.create("alice")
        path = daemon.channel("alice")
        assert isinstance(answer(path, "admin.vm.List"), bytes)
        reload(daemon, BROKEN)
        reply = answer(path, "admin.vm.List")
        assert (reply[:11] if isinstance(reply, bytes) else reply) == want
        reload(daemon, "")
        assert isinstance(answer(path, "admin.vm.List"), Failure)
        reload(daemon, ALLOW)
        assert isinstance(answer(path, "admin.vm.List"), bytes)


def reload(daemon: Daemon, policy: str) -> None:
    """Change the policy and wait until the daemon says that it read it."""
    before = said(daemon.root)
    place = daemon.root / "etc/qubes/policy.d/10-test.policy"
    place.with_suffix(".next").write_text(policy)
    # At once: the daemon might take the file in the moment in which it is emptied for being written.
    place.with_suffix(".next").rename(place)
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE
    while said(daemon.root) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def said(root: Path) -> int:
    return errors(root).count("policy loaded") + errors(root).count("10-test.policy:1")


def test_the_rule_is_for_dom0s_eyes_only(tmp_path: Path) -> None:
    with serving(
        tmp_path, "admin.vm.List * alice @anyvm deny\nadmin.vm.Start * alice @anyvm allow\n"
    ) as daemon:
        daemon.create("alice")
        path = daemon.channel("alice")
        assert (
            exchange(path, b"admin.vm.List x name alice\0")
            == b"2\0PermissionDenied\0\0denied by policy, record 1\0"
        )
        assert (
            exchange(path, b"admin.vm.Start x name alice\0")
            == b"2\0PermissionDenied\0\0denied by policy, record 2\0"
        )
        first, second = (json.loads(line) for line in daemon.audit().splitlines()[-2:])
        assert first["rule"].endswith("10-test.policy:1")
        assert second["rule"].endswith("10-test.policy:2")
        assert "target=dom0" in second["reason"]


def test_running_calls_are_answered_before_it_stops(tmp_path: Path) -> None:
    lay_out(tmp_path, ALLOW)
    process = start(tmp_path)
    wait_until_served(tmp_path, process)
    daemon = Daemon(tmp_path, process)
    daemon.create("alice")
    waiting = [connect(daemon.socket, PATIENCE) for _ in range(20)]
    for number, connection in enumerate(waiting):
        connection.sendall(f"admin.vm.tag.Set+t{number} dom0 name alice\0".encode("ascii"))
        connection.shutdown(socket.SHUT_WR)
    replies = [waiting[0].recv(10)]
    process.send_signal(signal.SIGTERM)
    for connection in waiting[1:]:
        try:
            replies.append(connection.recv(10))
        except ConnectionResetError:
            replies.append(b"")
    for connection in waiting:
        connection.close()
    assert process.wait(PATIENCE) == 0
    acknowledged = {f"t{number}" for number, reply in enumerate(replies) if reply == b"0\0"}
    assert acknowledged
    with serving(tmp_path, ALLOW) as daemon:
        assert acknowledged <= set(call(daemon.socket, "admin.vm.tag.List", "alice").decode().split())


def test_a_root_with_a_long_path_is_served(tmp_path: Path) -> None:
    root = tmp_path / ("long-name-" * 15)
    root.mkdir()
    with serving(root, ALLOW) as daemon:
        daemon.create("alice")
        assert isinstance(answer(daemon.channel("alice"), "admin.vm.List"), bytes)


def test_help_names_the_options() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker.daemon", "--help"], capture_output=True, text=True, check=True
    )
    assert "--root DIR" in done.stdout
