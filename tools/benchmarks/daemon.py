"""Decisions over ``policy.sock``, beside a bare asyncio server that echoes as many bytes.

The daemon and the bare server are processes of their own and the client is the same code: 10,000 requests
from 50 connections at once, each answer compared with what the engine says.
"""

from __future__ import annotations

import asyncio
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from broker.deciding.stock_state import fetch, parse_state
from broker.sockets import BACKLOG, short_path
from policy_engine import Allowed, Denied, Request, World, decide, load, respond
from qubesd.config import Config, rooted
from tools.benchmarks.broker import process, served, wait_for
from tools.benchmarks.yardstick import Result

QUBES = (10, 1_000)
RULES = (50, 10_000)
DECISIONS = 10_000
CONNECTIONS = 50
PORTIONS = 20
"""Alternating runs that the decisions are made in: what else the machine does falls on both."""
LIMIT = 2.0
"""At least half the rate of the bare server."""

_SERVICES = 25
_WAIT_MS = 30_000

Exchange = tuple[bytes, bytes]
"""A request, and the one right answer to it."""


def run() -> list[Result]:
    """Every row. Raises ``RuntimeError`` where one answer is wrong."""
    return [measure(qubes, rules) for qubes in QUBES for rules in RULES]


def measure(qubes: int, rules: int, decisions: int = DECISIONS) -> Result:
    """Seconds of one decision and of one echo: medians over alternating runs, the ratio of neighbours."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config = rooted(Path(folder) / "root")
        bare = Path(folder) / "bare.sock"
        with (
            served(config, qubes, partial(write_policy, qubes=qubes, rules=rules)),
            process("-m", __name__, str(bare)),
        ):
            wait_for(bare)
            asked = questions(config, qubes, decisions)
            times: tuple[list[float], list[float]] = ([], [])
            for portion in (slice(0, None, PORTIONS), *(slice(n, None, PORTIONS) for n in range(PORTIONS))):
                ours = asked[portion]
                theirs = [(request, request) for request, _ in ours]
                times[0].append(timed(config.policy_socket, ours))
                times[1].append(timed(bare, theirs))
    # The first run of each only warms up.
    ours_taken, theirs_taken = (taken[1:] for taken in times)
    ratio = statistics.median(one / other for one, other in zip(ours_taken, theirs_taken, strict=True))
    return Result(
        f"decide-{qubes}-{rules}",
        statistics.median(ours_taken),
        statistics.median(theirs_taken),
        ratio,
        LIMIT,
    )


def write_policy(folder: Path, qubes: int, rules: int) -> None:
    """So many rules about so many qubes; three in four allow."""
    folder.mkdir(parents=True)
    written = [
        f"bench.Service{number % _SERVICES} * qube-{number % (qubes - 3) + 1} "
        f"qube-{number * 7 % (qubes - 3) + 1} {'deny notify=no' if number % 4 == 3 else 'allow'}"
        for number in range(rules - 1)
    ]
    (folder / "30-bench.policy").write_text("\n".join([*written, "* * @anyvm @anyvm deny notify=no"]) + "\n")


def questions(config: Config, qubes: int, count: int) -> list[Exchange]:
    """Requests of every kind, half of which meet a rule of their own, with the engine's answers."""
    policy = load(directories=[str(config.policy_dir)], legacy=str(config.policy_legacy))
    world = parse_state(asyncio.run(fetch(config.run_dir / "qubesd.internal.sock")))
    asked = []
    for number in range(count):
        about = number * 13
        source, target = f"qube-{about % (qubes - 3) + 1}", f"qube-{about * 7 % (qubes - 3) + 1}"
        service = f"bench.Service{about % _SERVICES}" if number % 2 else f"bench.Other{number % 100}"
        request = Request(service, f"+{number}", source, target)
        lines = f"source={source}\nrequested_source=\nintended_target={target}\n"
        lines += f"service_and_arg={service}+{number}\n\n"
        decision = decide(policy, request, world)
        asked.append((lines.encode("ascii"), _answer(decision, request, world).encode("ascii")))
    if not {b"result=deny"} < {answer for _, answer in asked}:
        raise RuntimeError("the policy of this benchmark should allow some and deny some")
    return asked


def _answer(decision: object, request: Request, world: World) -> str:
    response = respond(decision, request, world) if isinstance(decision, Allowed) else decision
    return "result=deny" if isinstance(response, Denied) else str(response)


def timed(path: Path, exchanges: Sequence[Exchange]) -> float:
    """Seconds of one exchange, with ``CONNECTIONS`` of them open at any time."""
    with short_path(path) as name:
        started = time.perf_counter()
        converse(name, exchanges)
        return (time.perf_counter() - started) / len(exchanges)


def converse(address: str, exchanges: Sequence[Exchange]) -> None:
    """Make all exchanges. Raises ``RuntimeError`` at a wrong answer."""
    waiting = iter(exchanges)
    open_ones: dict[int, tuple[socket.socket, bytes, bytearray]] = {}
    with select.epoll() as events:

        def begin() -> None:
            exchange = next(waiting, None)
            if exchange is None:
                return
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address)
            connection.setblocking(False)
            connection.send(exchange[0])
            open_ones[connection.fileno()] = connection, exchange[1], bytearray()
            events.register(connection, select.EPOLLIN)

        for _ in range(CONNECTIONS):
            begin()
        while open_ones:
            ready = events.poll(_WAIT_MS / 1_000)
            if not ready:
                raise RuntimeError("no answer within half a minute")
            for descriptor, _ in ready:
                connection, wanted, answer = open_ones[descriptor]
                data = connection.recv(65_536)
                answer += data
                if not data:
                    del open_ones[descriptor]
                    connection.close()
                    if answer != wanted:
                        raise RuntimeError(f"expected {wanted!r}, found {bytes(answer)!r}")
                    begin()


class _Echo(asyncio.Protocol):
    """Sends back what it gets, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)
        self._transport.close()


async def _serve_bare(path: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(_Echo, path.with_suffix(".new"), backlog=BACKLOG)
    path.with_suffix(".new").rename(path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve_bare(Path(sys.argv[1])))
