"""From a change to the last of many listeners that hear of it, each judged as another caller."""

from __future__ import annotations

import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from broker.client import connect, received
from broker.wire import ESTABLISHED, encode_call
from qubesd.api.call import Call
from qubesd.config import Config, load
from tools.benchmarks.broker import RUNS, bare_server, channel, exchange, served, write_policy
from tools.benchmarks.yardstick import Result

LISTENERS = 100
SIZE = 1_000
SUBJECT = "qube-501"
WARM = 5
"""Changes that are not counted."""
LIMIT = 30
"""In E."""
_WAIT = 30.0


def run() -> list[Result]:
    """Both rows."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return measure(Path(folder))


def measure(folder: Path) -> list[Result]:
    """A change to a qube that all the listeners may see: until the last has the event that comes before it,
    which nothing but the listeners keeps up, and until the last has the one that says it is done.

    Events are filtered by ``visibility = "strict"``: each is judged, and the value in it as well.
    """
    root = folder / "root"
    file = root / "etc/qubes/qubesd.toml"
    file.parent.mkdir(parents=True)
    file.write_text('visibility = "strict"\n')
    config = load(root)
    with (
        served(config, SIZE, _write_policy),
        _listening(config) as listeners,
        bare_server(folder / "bare.sock", _reply_in(folder)) as bare,
    ):
        taken = [_change(config, listeners, bare, number) for number in range(WARM + RUNS)][WARM:]
    first, done, echo = (statistics.median(column) for column in zip(*taken, strict=True))
    return [
        Result(
            f"events-{LISTENERS}-listeners-{SIZE}",
            first,
            echo,
            statistics.median(one[0] / one[2] for one in taken),
            LIMIT,
        ),
        Result(
            f"change-{LISTENERS}-listeners-{SIZE}",
            done,
            echo,
            statistics.median(one[1] / one[2] for one in taken),
        ),
    ]


def _change(
    config: Config, listeners: list[socket.socket], bare: Path, number: int
) -> tuple[float, float, float]:
    """Seconds until the last listener has the first event of a change, until it has the second, and of an
    exchange with the bare server."""
    value = b"%06d" % number
    request = encode_call(Call("admin.vm.feature.Set", "bench", "dom0", SUBJECT, value))
    said = b"feature\0bench\0value\0" + value + b"\0"
    started = time.perf_counter()
    with connect(config.run_dir / "qubesd.sock") as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        early = [_read_past(listener, b":bench\0" + said, b"") for listener in listeners]
        first = time.perf_counter()
        for listener, rest in zip(listeners, early, strict=True):
            _read_past(listener, b"-feature-set:bench\0" + said, rest)
        done = time.perf_counter()
        b"".join(received(connection))
    begun = time.perf_counter()
    exchange(bare, request)
    return first - started, done - started, time.perf_counter() - begun


def _write_policy(folder: Path) -> None:
    """The rules of the other rows, and what each listener may."""
    write_policy(folder)
    calls = ("admin.Events", "admin.vm.List", "admin.vm.feature.Get")
    lines = [
        f"{service} * qube-{number} @tag:managed-by-mgmt allow target=dom0\n"
        for number in range(1, LISTENERS + 1)
        for service in calls
    ]
    lines += ["admin.Events * @anyvm @adminvm allow target=dom0\n"]
    (folder / "35-listeners.policy").write_text("".join(lines))


def _reply_in(folder: Path) -> Path:
    """What the bare server answers: as much as the daemon does to a change."""
    reply = folder / "reply"
    reply.write_bytes(b"0\0")
    return reply


@contextmanager
def _listening(config: Config) -> Iterator[list[socket.socket]]:
    request = encode_call(Call("admin.Events", "", "dom0", "dom0", b""))
    with ExitStack() as opened:
        listeners = []
        for number in range(1, LISTENERS + 1):
            listener = opened.enter_context(connect(channel(config, f"qube-{number}")))
            listener.settimeout(_WAIT)
            listener.sendall(request)
            listener.shutdown(socket.SHUT_WR)
            _read_past(listener, ESTABLISHED, b"")
            listeners.append(listener)
        yield listeners


def _read_past(listener: socket.socket, text: bytes, ahead: bytes) -> bytes:
    """What was received behind this text; ``ahead`` was received before. Raises ``RuntimeError`` where the
    stream ends without it."""
    while text not in ahead:
        more = listener.recv(65_536)
        if not more:
            raise RuntimeError("the daemon ended a stream of events")
        ahead += more
    return ahead.partition(text)[2]
