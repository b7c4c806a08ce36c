"""Sockets that a service manager listens on before, between and after runs of the policy daemon."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
QUESTION = b"source=work\nintended_target=vault\nservice_and_arg=a.B+\n\n"
EVALUATION = b"policy.EvalSimple+a.B anybody\0work\0vault"
NAMES = ("policy.sock", "policy.EvalSimple", "policy.EvalGUI")

MANAGER = """
import fcntl, os, sys
numbers, pid, count = sys.argv[1:4]
# Out of the way of the places that they go to.
spare = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in numbers.split()]
for place, number in enumerate(spare, 3):
    os.dup2(number, place)
os.environ["LISTEN_PID"] = pid or str(os.getpid())
os.environ["LISTEN_FDS"] = count
os.execv(sys.executable, [sys.executable, "-m", "broker.deciding.daemon", *sys.argv[4:]])
"""
"""Becomes the daemon, with sockets from descriptor 3 on, as systemd has it."""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its path leaves room for a socket's in an address, which ends at 107 bytes."""
    return tmp_path_factory.mktemp("s")


def options(folder: Path) -> list[str]:
    return [
        f"--policy-path={folder}",
        f"--socket-path={folder / NAMES[0]}",
        f"--eval-socket-path={folder / NAMES[1]}",
        f"--gui-socket-path={folder / NAMES[2]}",
    ]


@contextmanager
def listening(folder: Path, names: Sequence[str], kind: int = socket.SOCK_STREAM) -> Iterator[list[int]]:
    """What the service manager holds: the numbers of sockets with these names."""
    with ExitStack() as stack:
        numbers = []
        for name in names:
            one = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            one.bind(str(folder / name))
            if kind == socket.SOCK_STREAM:
                one.listen()
            numbers.append(one.fileno())
        yield numbers


@contextmanager
def daemon(
    folder: Path, numbers: Sequence[int], pid: str = "", count: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Started with these sockets."""
    told = (" ".join(map(str, numbers)), pid, count or str(len(numbers)))
    running = subprocess.Popen(
        [sys.executable, "-c", MANAGER, *told, *options(folder)],
        cwd=ROOT,
        pass_fds=numbers,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def connected(path: Path, request: bytes) -> socket.socket:
    """A connection on which something was asked."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(path))
    connection.sendall(request)
    return connection


def answer(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(4096), b""))


def ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Status and what was said."""
    _, said = running.communicate(timeout=PATIENCE)
    return running.returncode, said


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]], ids=["in-order", "reversed"])
def test_who_asks_while_the_daemon_is_away_is_answered_when_it_comes(
    folder: Path, order: Sequence[str]
) -> None:
    """Nobody goes to the fallback, which does not know the requested source."""
    with listening(folder, order) as numbers:
        for _ in range(2):
            waiting = connected(folder / "policy.sock", QUESTION)
            evaluation = connected(folder / "policy.EvalSimple", EVALUATION)
            evaluation.shutdown(socket.SHUT_WR)
            with daemon(folder, numbers) as running:
                assert answer(waiting) == b"result=deny"
                # Each socket speaks its own language, wherever among the descriptors it was.
                assert answer(evaluation) == b"result=deny\n"
                running.terminate()
                status, said = ended(running)
                assert status == 0, said
            assert all((folder / name).is_socket() for name in NAMES)


@pytest.mark.parametrize(
    ("names", "error"),
    [
        pytest.param(("other.sock", *NAMES[1:]), "other.sock: a socket of the service manager", id="wrong"),
        pytest.param((*NAMES, "other.sock"), "other.sock: a socket of the service manager", id="one-more"),
        pytest.param(NAMES[:2], "policy.EvalGUI: the service manager gave sockets, but none", id="one-less"),
    ],
)
def test_sockets_for_other_places_are_refused(folder: Path, names: Sequence[str], error: str) -> None:
    with listening(folder, names) as numbers, daemon(folder, numbers) as running:
        status, said = ended(running)
    assert status == 1
    assert error in said


@pytest.mark.parametrize(
    ("count", "error"),
    [
        pytest.param("-1", "LISTEN_FDS: expected a number of sockets, found '-1'", id="negative"),
        pytest.param("3x", "LISTEN_FDS: expected a number of sockets, found '3x'", id="no-number"),
        pytest.param("4", "file descriptor 6: ", id="more-than-there-are"),
        pytest.param("9" * 30, "file descriptor 6: ", id="far-more"),
    ],
)
def test_a_wrong_number_of_sockets_is_refused(folder: Path, count: str, error: str) -> None:
    with listening(folder, NAMES) as numbers, daemon(folder, numbers, count=count) as running:
        status, said = ended(running)
    assert status == 1
    assert error in said


def test_sockets_of_another_kind_are_refused(folder: Path) -> None:
    with listening(folder, NAMES, socket.SOCK_DGRAM) as numbers, daemon(folder, numbers) as running:
        status, said = ended(running)
    assert status == 1
    assert "file descriptor 3: not a stream socket that listens at a path" in said


def test_a_socket_that_nobody_listens_on_is_refused(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / NAMES[0]))
        with daemon(folder, [bound.fileno()]) as running:
            status, said = ended(running)
    assert status == 1
    assert "file descriptor 3: not a stream socket that listens at a path" in said


def test_sockets_that_another_process_was_given_are_left_alone(folder: Path) -> None:
    """The variables that somebody has passed on without a thought: the daemon makes its own."""
    (folder / "other").mkdir()
    with listening(folder / "other", NAMES) as numbers, daemon(folder, numbers, pid="1") as running:
        assert running.stderr is not None
        while "ready: " not in (line := running.stderr.readline()):
            assert line
        assert answer(connected(folder / "policy.sock", QUESTION)) == b"result=deny"
        running.terminate()
        assert ended(running)[0] == 0
    assert not (folder / "policy.sock").exists()


def test_systemd_hands_over_what_the_daemon_takes(folder: Path) -> None:
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("systemd-socket-activate is not installed")
    command = [sys.executable, "-m", "broker.deciding.daemon"]
    listen = [f"--listen={folder / name}" for name in NAMES]
    running = subprocess.Popen(
        # It starts the program with little of an environment, and with the first connection.
        [program, *listen, f"--setenv=PYTHONPATH={ROOT}", *command, *options(folder)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stderr is not None
        # One line for each, written when it listens.
        assert [running.stderr.readline().split(" as ")[0] for _ in NAMES] == [
            f"Listening on {folder / name}" for name in NAMES
        ]
        assert answer(connected(folder / "policy.sock", QUESTION)) == b"result=deny"
        running.terminate()
        status, said = ended(running)
        assert status == 0, said
    finally:
        running.kill()
        running.communicate()
