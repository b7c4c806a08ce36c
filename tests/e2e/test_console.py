"""The console program as the qrexec daemon runs it: refusals of a real daemon, and real terminals.

The embedded hypervisor has no console, so where one is joined, what qubesd answers is made up, and nothing
else is.
"""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.client import call
from broker.services.console import TAKEN
from broker.wire import Failure, parse_reply
from tests.broker.rig import PATIENCE, Daemon, serving, speaking

NAMED = {"QREXEC_REQUESTED_TARGET_TYPE": "name"}
POLICY = "admin.vm.Console * alice work allow target=dom0\nadmin.vm.Console * alice @adminvm allow\n"


def begin(
    qubesd: Path, run_dir: Path, *words: str, target: str = "work", **environment: str
) -> subprocess.Popen[bytes]:
    """The program, with pipes for its standard files."""
    settings = {**NAMED, "QREXEC_REMOTE_DOMAIN": "alice", "QREXEC_REQUESTED_TARGET": target, **environment}
    options = [f"--qubesd-socket-path={qubesd}", f"--run-dir={run_dir}"]
    return subprocess.Popen(
        [sys.executable, "-m", "broker.services.console", *words, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **settings},
    )


def refused(process: subprocess.Popen[bytes]) -> str:
    """The class of the error that is its whole output."""
    output, _ = process.communicate(timeout=PATIENCE)
    reply = parse_reply(output)
    assert isinstance(reply, Failure)
    assert process.returncode == 1
    return reply.kind


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("root"), POLICY) as daemon:
        daemon.create("alice", "bob", "work")
        yield daemon


@pytest.mark.parametrize(
    ("words", "environment", "kind"),
    [
        pytest.param((), {}, "QubesVMNotRunningError", id="halted"),
        pytest.param((), {"QREXEC_REMOTE_DOMAIN": "bob"}, "PermissionDenied", id="not-allowed"),
        pytest.param((), {"QREXEC_REQUESTED_TARGET": "none"}, "QubesValueError", id="no-name"),
        pytest.param((), {"QREXEC_REQUESTED_TARGET": "../work"}, "QubesValueError", id="path"),
        pytest.param(
            (), {"QREXEC_REQUESTED_TARGET": "uuid:../work"}, "QubesVMInvalidUUIDError", id="path-as-uuid"
        ),
        pytest.param((), {"QREXEC_REQUESTED_TARGET": ""}, "ProtocolError", id="nobody"),
        pytest.param(("x",), {}, "ProtocolError", id="argument"),
        pytest.param(("--help",), {}, "ProtocolError", id="argument-like-an-option"),
        pytest.param(
            (),
            {"QREXEC_REQUESTED_TARGET_TYPE": "keyword", "QREXEC_REQUESTED_TARGET_KEYWORD": "adminvm"},
            "QubesException",
            id="dom0",
        ),
    ],
)
def test_what_is_refused_is_answered(
    daemon: Daemon, tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], kind: str
) -> None:
    assert refused(begin(daemon.socket, tmp_path, *words, **environment)) == kind
    assert list(tmp_path.iterdir()) == []


def test_a_guest_without_a_console(daemon: Daemon, tmp_path: Path) -> None:
    call(daemon.socket, "admin.vm.Start", "work")
    try:
        kind = refused(begin(daemon.socket, tmp_path))
    finally:
        call(daemon.socket, "admin.vm.Kill", "work")
    assert kind == "QubesNotImplementedError"


def test_no_daemon(tmp_path: Path) -> None:
    assert refused(begin(tmp_path / "none", tmp_path)) == "QubesException"


@pytest.mark.parametrize("said", [b"", b"0", b"7\0"])
def test_a_daemon_that_says_nothing_of_sense(tmp_path: Path, said: bytes) -> None:
    with answering(tmp_path / "qubesd.sock", said):
        assert refused(begin(tmp_path / "qubesd.sock", tmp_path)) == "QubesException"


def test_what_is_no_terminal(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"as it was")
    with answering(tmp_path / "qubesd.sock", b"0\0" + os.fsencode(place)):
        assert refused(begin(tmp_path / "qubesd.sock", tmp_path)) == "QubesException"
    assert place.read_bytes() == b"as it was"


@contextmanager
def answering(path: Path, reply: bytes) -> Iterator[list[bytes]]:
    """A qubesd that says the same to everyone; the requests that it read."""
    requests: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        request = b""
        while data := connection.recv(4096):
            request += data
        requests.append(request)
        connection.sendall(reply)

    with speaking(path, serve):
        yield requests


class Console:
    """A terminal, of which the guest's side is held here, and a qubesd that names it."""

    def __init__(self, folder: Path, guest: int) -> None:
        self.folder, self.guest = folder, guest

    def join(self, target: str = "work") -> subprocess.Popen[bytes]:
        return begin(self.folder / "qubesd.sock", self.folder, target=target)

    def prompt(self, process: subprocess.Popen[bytes], text: bytes = b"login: ") -> None:
        """The guest writes, and the caller has it: the console is joined."""
        os.write(self.guest, text)
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == text

    def typed(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            data += os.read(self.guest, length - len(data))
        return data


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    guest, terminal = pty.openpty()
    tty.setraw(terminal)
    try:
        with answering(tmp_path / "qubesd.sock", b"0\0" + os.ttyname(terminal).encode()) as requests:
            yield Console(tmp_path, guest)
        assert {request.split(b"\0")[0] for request in requests} <= {
            b"admin.vm.Console+ alice name work",
            b"admin.vm.Console+ alice name uuid:" + UUID.encode(),
        }
    finally:
        for descriptor in (guest, terminal):
            os.close(descriptor)


UUID = "6d2a1ef0-9b5d-4a5c-8b8e-0123456789ab"


def test_bytes_go_both_ways_as_they_are(console: Console) -> None:
    process = console.join()
    console.prompt(process)
    assert process.stdin is not None
    untouched = bytes(range(256)) + b"root\n\x03\x04"
    process.stdin.write(untouched)
    process.stdin.flush()
    assert console.typed(len(untouched)) == untouched
    # More than any buffer on the way holds.
    long = os.urandom(1 << 18)
    writer = os.fork()
    if writer == 0:
        with open(console.guest, "wb", closefd=False) as guest:
            guest.write(long)
        os._exit(0)
    assert process.stdout is not None
    shown = b""
    while len(shown) < len(long):
        shown += os.read(process.stdout.fileno(), 1 << 16)
    assert shown == long
    assert os.waitpid(writer, 0)[1] == 0
    output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, b"")


def test_what_the_guest_says_to_the_last_word_is_shown(console: Console) -> None:
    with console.join() as process:
        console.prompt(process)
        assert process.stdin is not None
        process.stdin.write(b"exit\n")
        process.stdin.close()
        assert console.typed(5) == b"exit\n"
        os.write(console.guest, b"bye\r\n")
        assert process.stdout is not None
        assert process.stdout.read() == b"bye\r\n"
        assert process.wait(PATIENCE) == 0


def test_it_ends_with_the_guest(tmp_path: Path) -> None:
    guest, terminal = pty.openpty()
    place = os.ttyname(terminal)
    with answering(tmp_path / "qubesd.sock", b"0\0" + place.encode()):
        process = begin(tmp_path / "qubesd.sock", tmp_path)
        Console(tmp_path, guest).prompt(process)
        os.close(terminal)
        os.close(guest)
        assert process.wait(PATIENCE) == 0
        process.communicate()


def test_it_ends_with_its_reader(console: Console) -> None:
    with console.join() as process:
        console.prompt(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("target", ["work", f"uuid:{UUID}"])
def test_one_at_a_time_has_the_console(console: Console, target: str) -> None:
    """By whatever it is asked for."""
    first = console.join()
    console.prompt(first)
    second = console.join(target)
    assert second.communicate(timeout=PATIENCE)[0] == b""
    assert second.returncode == TAKEN == 200
    console.prompt(first, b"still mine")
    first.communicate(timeout=PATIENCE)
    third = console.join(target)
    console.prompt(third)
    third.communicate(timeout=PATIENCE)
    assert third.returncode == 0
    assert (console.folder / "work.terminal.lock").is_file()


def test_a_lock_that_leads_elsewhere_is_not_followed(console: Console) -> None:
    victim = console.folder / "victim"
    (console.folder / "work.terminal.lock").symlink_to(victim)
    assert refused(console.join()) == "QubesException"
    assert not victim.exists()


def test_the_terminal_is_raw(tmp_path: Path) -> None:
    """What is typed is not echoed, and nothing in it is a signal, whatever the terminal was before."""
    guest, terminal = pty.openpty()
    tty.setcbreak(terminal)
    attributes = termios.tcgetattr(terminal)
    attributes[3] |= termios.ECHO | termios.ISIG
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    with answering(tmp_path / "qubesd.sock", b"0\0" + os.ttyname(terminal).encode()):
        process = begin(tmp_path / "qubesd.sock", tmp_path)
        Console(tmp_path, guest).prompt(process)
        assert termios.tcgetattr(terminal)[3] & (termios.ECHO | termios.ISIG | termios.ICANON) == 0
        process.communicate(timeout=PATIENCE)
    for descriptor in (guest, terminal):
        os.close(descriptor)
