"""Decisions of ``qrexec-policy-daemon``, which has the qubes described anew for them, beside a bare echo.

A bare server stands for the stock qubesd and gives its whole description at once, so that what is seen is the
policy daemon's own part. For information: how long the real one takes to describe its qubes is not ours.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from broker.deciding.stock_state import fetch
from broker.sockets import BACKLOG, short_path
from qubesd.config import rooted
from tools.benchmarks.broker import process, served, wait_for
from tools.benchmarks.daemon import QUBES, RULES, Exchange, converse, questions, timed, write_policy
from tools.benchmarks.yardstick import Result

DECISIONS = 2_000
"""Of each row in which many ask at once; a tenth of them where one asks after the other, so that each has a
fetch of its own."""
PORTIONS = 10
"""Alternating runs that the decisions are made in: what else the machine does falls on both."""

Timed = Callable[[Path, Sequence[Exchange]], float]
"""Seconds of one exchange."""


def run() -> list[Result]:
    """Every row. Raises ``RuntimeError`` where one answer is wrong."""
    return [row for qubes in QUBES for rules in RULES for row in measure(qubes, rules)]


def measure(qubes: int, rules: int, decisions: int = DECISIONS) -> Iterator[Result]:
    """Seconds of a decision: of many at once, one after the other, and that with a qube that starts or stops
    each time."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        config = rooted(folder / "root")
        with served(config, qubes, partial(write_policy, qubes=qubes, rules=rules)):
            asked = questions(config, qubes, decisions)
            document = asyncio.run(fetch(config.run_dir / "qubesd.internal.sock"))
        (folder / "same").write_bytes(b"0\0" + document)
        (folder / "other").write_bytes(b"0\0" + _changed(document))
        few = asked[: decisions // 10]
        rows: tuple[tuple[str, tuple[str, ...], Timed, Sequence[Exchange]], ...] = (
            ("alone", ("same",), timed, asked),
            ("alone-single", ("same",), one_by_one, few),
            ("alone-changing", ("same", "other"), one_by_one, few),
        )
        for row, documents, once, exchanges in rows:
            places = folder / row
            places.mkdir()
            policy, stock, bare = (places / f"{name}.sock" for name in ("policy", "stock", "bare"))
            with (
                process("-m", __name__, str(stock), *(str(folder / name) for name in documents)),
                process("-m", "tools.benchmarks.daemon", str(bare)),
                process("-m", "broker.deciding.daemon", *_options(places, config.policy_dir)),
            ):
                for path in (stock, bare, policy):
                    wait_for(path)
                yield _beside(f"{row}-{qubes}-{rules}", partial(once, policy), partial(once, bare), exchanges)


def one_by_one(path: Path, exchanges: Sequence[Exchange]) -> float:
    """Seconds of one exchange, each begun when the one before is over."""
    with short_path(path) as name:
        started = time.perf_counter()
        for exchange in exchanges:
            converse(name, [exchange])
        return (time.perf_counter() - started) / len(exchanges)


def _beside(
    name: str,
    ours: Callable[[Sequence[Exchange]], float],
    theirs: Callable[[Sequence[Exchange]], float],
    asked: Sequence[Exchange],
) -> Result:
    echoed = [(request, request) for request, _ in asked]
    # The first run of each only warms up.
    ours(asked), theirs(echoed)
    portions = [slice(number, None, PORTIONS) for number in range(PORTIONS)]
    times = [(ours(asked[portion]), theirs(echoed[portion])) for portion in portions]
    ratio = statistics.median(one / other for one, other in times)
    taken, echo = (statistics.median(column) for column in zip(*times, strict=True))
    return Result(name, taken, echo, ratio)


def _options(places: Path, policy: Path) -> Iterator[str]:
    yield from ("--policy-path", str(policy))
    for option, name in (
        ("--socket-path", "policy.sock"),
        ("--eval-socket-path", "policy.EvalSimple"),
        ("--gui-socket-path", "policy.EvalGUI"),
        ("--qubesd-socket-path", "stock.sock"),
        ("--agent-path", ""),
    ):
        yield from (option, str(places / name))


def _changed(document: bytes) -> bytes:
    """The same system with one qube that runs."""
    description = json.loads(document)
    description["domains"]["template"]["power_state"] = "Running"
    return json.dumps(description).encode("ascii")


class _Describing(asyncio.Protocol):
    """Reads to the end, answers, closes; the least that a qubesd does."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def eof_received(self) -> None:
        self._transport.write(self._reply)


async def _describe(path: Path, files: Sequence[str]) -> None:
    """Answer with the content of these files in turn."""
    replies = itertools.cycle([Path(file).read_bytes() for file in files])
    loop = asyncio.get_running_loop()
    hidden = path.with_suffix(".new")
    server = await loop.create_unix_server(lambda: _Describing(next(replies)), hidden, backlog=BACKLOG)
    hidden.rename(path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_describe(Path(sys.argv[1]), sys.argv[2:]))
