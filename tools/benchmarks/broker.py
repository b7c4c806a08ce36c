"""Whole calls over real sockets, beside E: a bare asyncio server that answers the same bytes.

The daemon and the bare server are processes of their own, and the client is the same code. Their runs
alternate, so that what else the machine does falls on both.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.client import call, connect, received
from broker.root import furnish
from broker.sockets import BACKLOG
from broker.wire import encode_call
from qubesd.api.call import Call
from qubesd.config import Config, rooted
from qubesd.model.state import Klass, Qube, System
from qubesd.store.file import FileStore
from qubesd.store.fresh import POOL, fresh_system
from tools.benchmarks.yardstick import Result

SIZES = (10, 100, 1_000)
CALLER = "mgmt"
FURTHER_RULES = 1_000
RUNS = int(os.environ.get("BENCH_RUNS", "41"))
"""Many short runs: what else the machine does comes in bursts, and the median leaves them out."""
_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """One call on a system of ``size`` qubes; ``limit`` in E, ``None`` if the row is for information."""

    name: str
    size: int
    delegated: bool
    service: str
    target: str
    argument: str
    calls: int
    limit: float | None


ROWS = (
    *(Row(f"property-get-{n}", n, True, "admin.vm.property.Get", "qube-1", "label", 100, 1.8) for n in SIZES),
    Row("list-dom0-1000", 1_000, False, "admin.vm.List", "dom0", "", 40, 6),
    Row("list-delegated-1000", 1_000, True, "admin.vm.List", "dom0", "", 40, 10),
)


def run() -> list[Result]:
    """Every row. A call of ``property-set`` is measured beside a file of the same size that is written,
    synced and renamed."""
    results = []
    for size in SIZES:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            config = rooted(Path(folder) / "root")
            with served(config, size):
                results += [_beside_bare(row, config, Path(folder)) for row in ROWS if row.size == size]
                if size == SIZES[-1]:
                    results.append(_durable(config, Path(folder)))
    return results


def _beside_bare(row: Row, config: Config, folder: Path) -> Result:
    """One row, in E."""
    path = channel(config, CALLER) if row.delegated else config.run_dir / "qubesd.sock"
    request = encode_call(Call(row.service, row.argument, "dom0", row.target, b""))
    reply = folder / "reply"
    reply.write_bytes(exchange(path, request))
    if not reply.read_bytes().startswith(b"0\0"):
        raise RuntimeError(f"{row.name}: the daemon answers {reply.read_bytes()[:200]!r}")
    with bare_server(folder / "bare.sock", reply) as bare:
        return alternate(
            row.name,
            lambda: exchange(path, request),
            lambda: exchange(bare, request),
            row.calls,
            row.limit,
        )


def _durable(config: Config, folder: Path) -> Result:
    """One change that is on the disk when it is answered."""
    path = config.run_dir / "qubesd.sock"
    content = config.store.read_bytes()
    numbers = iter(range(1_000_000))

    def change() -> None:
        memory = str(400 + next(numbers) % 100).encode()
        call(path, "admin.vm.property.Set", "qube-1", "memory", memory)

    def write() -> None:
        place = folder / "beside"
        with (folder / "beside.new").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (folder / "beside.new").replace(place)

    return alternate("property-set-1000", change, write, 10)


def alternate(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    passes: int,
    limit: float | None = None,
) -> Result:
    """Seconds of one call of each and how they compare: medians over alternating runs, the ratio of
    neighbours."""
    times: tuple[list[float], list[float]] = ([], [])
    for once in (ours, theirs):
        for _ in range(passes):
            once()
    for _ in range(RUNS):
        for once, taken in zip((ours, theirs), times, strict=True):
            started = time.perf_counter()
            for _ in range(passes):
                once()
            taken.append((time.perf_counter() - started) / passes)
    ratio = statistics.median(one / other for one, other in zip(*times, strict=True))
    return Result(name, statistics.median(times[0]), statistics.median(times[1]), ratio, limit)


def exchange(path: Path, request: bytes) -> bytes:
    """One request and its whole reply."""
    with connect(path) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(received(connection))


@contextmanager
def served(config: Config, size: int, write: Callable[[Path], None] | None = None) -> Iterator[None]:
    """A daemon on a new system of ``size`` qubes below the directory of ``config``, with the policy that
    ``write`` puts into a folder (``None``: ``write_policy``)."""
    (write or write_policy)(config.policy_dir)
    furnish(config)
    store = FileStore(config.store)
    store.save(system_of(config, size))
    store.close()
    root = config.qubes_dir.parents[2]
    with process("-m", "broker.daemon", "--root", str(root)):
        wait_for(config.run_dir / "qubesd.sock")
        yield


@contextmanager
def bare_server(path: Path, reply: Path) -> Iterator[Path]:
    """E: the bare server, which answers everything with the content of a file."""
    with process("-m", __name__, str(path), str(reply)):
        wait_for(path)
        yield path
    path.unlink()


def system_of(config: Config, size: int) -> System:
    """``size`` qubes with dom0: a template, the caller, and the rest AppVMs, half of them the caller's."""
    system = fresh_system(config.qubes_dir, config.kernels_dir).with_property("default_pool", POOL)
    qubes = {"template": Klass.TEMPLATE, CALLER: Klass.APP}
    qubes |= {f"qube-{number}": Klass.APP for number in range(1, size - 2)}
    for qid, (name, klass) in enumerate(qubes.items(), 1):
        system = system.with_qube(
            Qube(
                name,
                qid,
                str(uuid.uuid4()),
                klass,
                {"label": "red"} | ({"template": "template"} if klass is Klass.APP else {}),
                tags=frozenset({"created-by-dom0", *(["managed-by-mgmt"] if qid % 2 else [])}),
            )
        )
    return system


def write_policy(folder: Path) -> None:
    """What the caller may, with further rules around it: half of them about the same caller and the same
    calls."""
    (folder / "include").mkdir(parents=True)
    further = []
    for number in range(FURTHER_RULES // 2):
        further.append(
            f"admin.vm.List * {CALLER} qube-{2 * number} {'allow target=dom0' if number % 3 else 'deny'}"
        )
        further.append(
            f"admin.vm.property.Get +p{number} mgmt-{number} @tag:managed-by-{number} allow target=dom0"
        )
    (folder / "30-further.policy").write_text("\n".join(further) + "\n")
    (folder / "40-mgmt.policy").write_text(
        f"admin.vm.List * {CALLER} @adminvm allow target=dom0\n"
        f"admin.vm.List * {CALLER} @tag:managed-by-{CALLER} allow target=dom0\n"
        f"admin.vm.property.Get * {CALLER} @tag:managed-by-{CALLER} allow target=dom0\n"
        "* * @anyvm @anyvm deny\n"
    )


def channel(config: Config, name: str) -> Path:
    """The socket of a qube."""
    row = call(config.run_dir / "qubesd.sock", "admin.vm.List", name).decode()
    return config.channels_dir / f"{row.split('uuid=')[1].split()[0]}.sock"


@contextmanager
def process(*arguments: str) -> Iterator[None]:
    with ExitStack() as cleanup:
        started = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.DEVNULL)
        cleanup.callback(started.wait)
        cleanup.callback(started.terminate)
        yield


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + _WAIT
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path}: no server answers within {_WAIT:.0f} s")
        time.sleep(0.02)


class _Bare(asyncio.Protocol):
    """Reads to the end, answers, closes; the least that a server of this protocol does."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._request += data

    def eof_received(self) -> None:
        self._transport.write(self._reply)


async def _serve_bare(path: Path, content: bytes) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: _Bare(content), path.with_suffix(".new"), backlog=BACKLOG)
    path.with_suffix(".new").rename(path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve_bare(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
