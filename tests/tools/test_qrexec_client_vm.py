"""``qrexec-client-vm`` as the stock library uses it: what goes in, what comes out, and the exit status."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.client import call, connect
from broker.sockets import short_path
from tests.broker.rig import PATIENCE, ROOT, Daemon, serving, take

COMMAND = ROOT / "tools/qrexec-client-vm"
POLICY = """\
admin.vm.List * alice @adminvm allow target=dom0
admin.vm.property.Get * alice alice allow target=dom0
admin.vm.feature.Get * alice alice allow target=dom0
admin.vm.feature.Set * alice alice allow target=dom0
admin.Events * alice alice allow target=dom0
no.such.Service * alice @adminvm allow target=dom0
admin.no.Such * alice @adminvm allow target=dom0
"""
ESTABLISHED = b"1\0\0connection-established\0\0"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("root"), POLICY) as daemon:
        daemon.create("alice")
        yield daemon


def run(daemon: Daemon, *words: str, data: bytes = b"", **how: Any) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [COMMAND, f"--agent-socket={daemon.channel('alice')}", *words],
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        **how,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "data", "want"),
    [
        pytest.param(
            ("alice", "admin.vm.property.Get+label"), b"", b"0\0default=False type=label red", id="a-read"
        ),
        pytest.param(
            ("alice", "admin.vm.feature.Get+none"), b"", b"2\0QubesFeatureNotFoundError\0", id="an-exception"
        ),
        pytest.param(("dom0", "admin.vm.List"), b"", b"0\0dom0 class=AdminVM ", id="dom0"),
        pytest.param(("@adminvm", "admin.vm.List+"), b"", b"0\0dom0 class=AdminVM ", id="adminvm"),
        pytest.param(("$adminvm", "admin.vm.List"), b"", b"0\0dom0 class=AdminVM ", id="dollar"),
        pytest.param(
            ("dom0", "admin.no.Such"), b"", b"2\0ProtocolError\0\0no such method", id="no-such-admin-call"
        ),
        pytest.param(("alice", "admin.vm.feature.Set+x"), b"value", b"0\0", id="payload-from-input"),
        pytest.param(
            ("-p", "val", "alice", "admin.vm.feature.Set+y"), b"ue", b"0\0", id="prefix-before-input"
        ),
    ],
)
def test_a_call_gives_its_answer_and_status_0(
    daemon: Daemon, words: tuple[str, ...], data: bytes, want: bytes
) -> None:
    status, output, errors = run(daemon, *words, data=data)
    assert (status, errors) == (0, b"")
    assert output.startswith(want)


def test_the_payload_is_prefix_and_input(daemon: Daemon) -> None:
    run(daemon, "--prefix-data=one ", "alice", "admin.vm.feature.Set+both", data=b"two")
    assert call(daemon.socket, "admin.vm.feature.Get", "alice", "both") == b"one two"


@pytest.mark.parametrize(
    ("words", "status", "errors"),
    [
        pytest.param(("alice", "admin.vm.Start"), 126, b"Request refused\n", id="refused"),
        pytest.param(("no-such-qube", "admin.vm.List"), 126, b"Request refused\n", id="unknown-target"),
        pytest.param(("", "admin.vm.List"), 126, b"Request refused\n", id="default-target"),
        pytest.param(("@dispvm", "admin.vm.List"), 126, b"Request refused\n", id="disposable"),
        pytest.param(("dom0", "no.such.Service"), 127, b"qrexec-client-vm: no service", id="no-such-service"),
        pytest.param(("dom0",), 2, b"qrexec-client-vm: a target and a service", id="no-service"),
        pytest.param(("--what", "dom0", "x"), 2, b"qrexec-client-vm: option --what", id="unknown-option"),
        pytest.param(("dom0", "a b"), 2, b"qrexec-client-vm: ", id="blank-in-the-service"),
        pytest.param(
            ("--buffer-size=x", "dom0", "a"), 1, b"qrexec-client-vm: bad buffer size", id="bad-size"
        ),
        pytest.param(("--buffer-size=0", "dom0", "a"), 1, b"qrexec-client-vm: bad buffer size", id="no-size"),
        pytest.param(
            ("--agent-socket=/none/x", "dom0", "a"), 1, b"qrexec-client-vm: /none/x: ", id="no-agent"
        ),
        pytest.param(("-s", "far", "dom0", "a"), 125, b"qrexec-client-vm: calls for another", id="relay"),
        pytest.param(
            ("--use-stdin-socket", "dom0", "a", "cat"),
            2,
            b"qrexec-client-vm: --use-stdin",
            id="both-directions",
        ),
        pytest.param(
            ("dom0", "a", "/none/program"), 125, b"qrexec-client-vm: /none/program: ", id="no-program"
        ),
    ],
)
def test_what_fails_has_its_status_and_no_output(
    daemon: Daemon, words: tuple[str, ...], status: int, errors: bytes
) -> None:
    found = run(daemon, *words)
    assert found[:2] == (status, b"")
    assert found[2].startswith(errors)


def test_help(daemon: Daemon) -> None:
    status, output, errors = run(daemon, "-h")
    assert (status, errors) == (0, b"")
    assert output.startswith(b"usage: qrexec-client-vm [OPTIONS] TARGET SERVICE")


def test_the_socket_may_come_from_the_environment(daemon: Daemon) -> None:
    done = subprocess.run(
        [COMMAND, "dom0", "admin.vm.List"],
        env={**os.environ, "QREXEC_AGENT_SOCKET": str(daemon.channel("alice"))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"0\0dom0 ")


def test_a_local_program_is_connected_instead(daemon: Daemon) -> None:
    script = "printf 'from the program'; exec >&-; cat >&$SAVED_FD_1"
    status, output, errors = run(
        daemon, "alice", "admin.vm.feature.Set+local", "sh", "-c", script, data=b"unused"
    )
    assert (status, output, errors) == (0, b"0\0", b"")
    assert call(daemon.socket, "admin.vm.feature.Get", "alice", "local") == b"from the program"


def test_descriptor_0_may_be_a_socket_for_both_directions(daemon: Daemon) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [
                COMMAND,
                f"--agent-socket={daemon.channel('alice')}",
                "--use-stdin-socket",
                "alice",
                "admin.vm.feature.Set+s",
            ],
            stdin=theirs.fileno(),
        )
        theirs.close()
        ours.sendall(b"through it")
        ours.shutdown(socket.SHUT_WR)
        assert take(ours, 2) == b"0\0"
        assert process.wait(PATIENCE) == 0
    assert call(daemon.socket, "admin.vm.feature.Get", "alice", "s") == b"through it"


def test_events_flow_until_it_is_killed(daemon: Daemon) -> None:
    path = daemon.channel("alice")
    process = subprocess.Popen(
        [COMMAND, f"--agent-socket={path}", "alice", "admin.Events"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(len(ESTABLISHED)) == ESTABLISHED
    call(daemon.socket, "admin.vm.tag.Set", "alice", "told")
    message = b"1\0alice\0domain-tag-add:told\0tag\0told\0\0"
    assert process.stdout.read(len(message)) == message
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == -signal.SIGTERM
    process.stdout.close()


def test_it_ends_when_nobody_reads_any_more(daemon: Daemon) -> None:
    """Without waiting for an event."""
    process = subprocess.Popen(
        [COMMAND, f"--agent-socket={daemon.channel('alice')}", "alice", "admin.Events"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(len(ESTABLISHED)) == ESTABLISHED
    process.stdout.close()
    assert process.wait(PATIENCE) == 125


def test_an_answer_that_comes_before_all_is_written_is_read(tmp_path: Path) -> None:
    """A server may break off reading; what it said then must not be lost in a broken pipe."""
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path)) if len(str(path)) < 100 else pytest.skip(
            "the scratch directory's name is too long"
        )
        agent.listen()
        process = subprocess.Popen(
            [COMMAND, f"--agent-socket={path}", "alice", "admin.vm.volume.Import+private"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        server, _ = agent.accept()
        with server:
            server.recv(100)
            server.sendall(b"2\0QubesException\0\0enough\0")
            server.shutdown(socket.SHUT_RDWR)
        output, _ = process.communicate(bytes(10_000_000), PATIENCE)
    assert process.returncode == 0
    assert output == b"2\0QubesException\0\0enough\0"


@pytest.mark.parametrize(
    ("options", "want"),
    [
        pytest.param((), b"a__[2Jb_c", id="a-terminal-is-protected"),
        pytest.param(("--no-filter-escape-chars-stdout",), b"a\x00\x1b[2Jb\xffc", id="unless-told-not-to"),
    ],
)
def test_control_characters_do_not_reach_a_terminal(
    tmp_path: Path, options: tuple[str, ...], want: bytes
) -> None:
    path = tmp_path / "agent"
    terminal, output = pty.openpty()
    with socket.socket(socket.AF_UNIX) as agent:
        with short_path(path) as name:
            agent.bind(name)
        agent.listen()
        process = subprocess.Popen(
            [COMMAND, f"--agent-socket={path}", *options, "alice", "x.Y"],
            stdin=subprocess.DEVNULL,
            stdout=output,
        )
        os.close(output)
        server, _ = agent.accept()
        with server:
            server.sendall(b"a\x00\x1b[2Jb\xffc")
        assert process.wait(PATIENCE) == 0
    assert os.read(terminal, 100) == want
    os.close(terminal)


def test_filtering_is_off_for_a_pipe_and_on_when_asked_for(daemon: Daemon) -> None:
    assert b"\0" in run(daemon, "dom0", "admin.vm.List")[1]
    assert b"\0" not in run(daemon, "-t", "dom0", "admin.vm.List")[1]


def test_a_refusal_of_the_door_is_no_reply(daemon: Daemon) -> None:
    """The socket of a user is refused to root and to the daemon's own user without a byte."""
    path = daemon.root / "run/user.sock"
    with connect(path) as probe:
        probe.settimeout(PATIENCE)
        assert probe.recv(1) == b""
    done = subprocess.run(
        [COMMAND, f"--agent-socket={path}", "dom0", "admin.vm.List"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")
