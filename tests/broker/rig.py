"""A real daemon below a scratch directory, and what tests say to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from broker.client import call, connect, received
from broker.sockets import short_path
from broker.wire import Failure, encode_call, parse_reply
from qubesd.api.call import Call

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which a test that waits fails; nothing here takes a tenth of that."""


@dataclass(frozen=True)
class Daemon:
    """``root`` is its directory, ``process`` the daemon itself."""

    root: Path
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        return self.root / "run/qubesd.sock"

    def channel(self, name: str) -> Path:
        """The socket of a qube."""
        row = call(self.socket, "admin.vm.List", name).decode("ascii")
        return self.root / "run/rpc" / f"{row.split('uuid=')[1].split()[0]}.sock"

    def create(self, *names: str, klass: str = "StandaloneVM", tags: Mapping[str, str] | None = None) -> None:
        """Make qubes, and set the tag that ``tags`` has for some of them."""
        for name in names:
            call(self.socket, f"admin.vm.Create.{klass}", payload=f"name={name} label=red".encode("ascii"))
        for name, tag in (tags or {}).items():
            call(self.socket, "admin.vm.tag.Set", name, tag)

    def audit(self) -> str:
        return (self.root / "var/log/qubes/qubesd-audit.jsonl").read_text(encoding="ascii")


@contextmanager
def serving(
    root: Path, policy: str = "", config: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """A daemon on ``root``, whose policy is this text alone; it has to stop cleanly at the end."""
    lay_out(root, policy, config)
    process = start(root, environment)
    try:
        wait_until_served(root, process)
        yield Daemon(root, process)
    except BaseException:
        process.kill()
        process.wait()
        print(errors(root))
        raise
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0, errors(root)
    assert "Traceback" not in errors(root), errors(root)


def lay_out(root: Path, policy: str, config: str = "") -> None:
    folder = root / "etc/qubes/policy.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "10-test.policy").write_text(policy, encoding="utf-8")
    (root / "etc/qubes/qubesd.toml").write_text(config, encoding="utf-8")


def start(root: Path, environment: Mapping[str, str] | None = None, *options: str) -> subprocess.Popen[bytes]:
    """A daemon whose messages go to a file; ``errors`` has them."""
    with (root / "errors").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "broker.daemon", "--root", str(root), *options],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stderr=log,
        )


def errors(root: Path) -> str:
    return (root / "errors").read_text(encoding="utf-8")


def wait_until_served(root: Path, process: subprocess.Popen[bytes]) -> None:
    """Until it answers, and the first process of this root has said so."""
    deadline = time.monotonic() + PATIENCE
    while not (root / "run/qubesd.sock").exists() or "ready: " not in errors(root):
        assert process.poll() is None, errors(root)
        assert time.monotonic() < deadline, "the daemon does not answer"
        time.sleep(0.02)


def exchange(path: Path, request: bytes) -> bytes:
    """What comes back for these bytes, to the end; nothing where the server breaks off."""
    with connect(path, PATIENCE) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return b"".join(received(connection))


def answer(
    path: Path,
    service: str,
    target: str = "dom0",
    argument: str = "",
    payload: bytes = b"",
    source: str = "dom0",
) -> bytes | Failure:
    """The content of an answer, or what went wrong."""
    return parse_reply(exchange(path, encode_call(Call(service, argument, source, target, payload))))


@contextmanager
def listening(path: Path, target: str = "dom0", source: str = "dom0") -> Iterator[socket.socket]:
    """An event stream that is established."""
    with connect(path, PATIENCE) as connection:
        connection.sendall(encode_call(Call("admin.Events", "", source, target, b"")))
        connection.shutdown(socket.SHUT_WR)
        first = b"1\0\0connection-established\0\0"
        assert take(connection, len(first)) == first
        yield connection


def take(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        assert more, f"the stream ended after {data!r}"
        data += more
    return data


@contextmanager
def speaking(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server of one connection at a time, over the file that is there; it closes after ``serve``."""
    stop = threading.Event()

    def run() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if stop.is_set():
                    return
                # The other side may hang up in the middle; what comes of that is the test's to see.
                with suppress(ConnectionError):
                    serve(connection)

    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        with short_path(path) as name:
            listener.bind(name)
        listener.listen()
        server = threading.Thread(target=run)
        server.start()
        try:
            yield
        finally:
            stop.set()
            with socket.socket(socket.AF_UNIX) as last, short_path(path) as name:
                last.connect(name)
            server.join(PATIENCE)
    path.unlink()
