"""One case over one connection, and whether what came back is right."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tools.fuzzing.cases import Case, Ending
from tools.fuzzing.ground import Ground
from tools.fuzzing.oracle import NOTHING, Meaning, answers
from tools.fuzzing.wire import POLICY, SOCKETS

PATIENCE = 20.0
"""Seconds that an answer may take. A client with nothing to wait for stays as long as its case says."""

_ENOUGH = 65_536
"""Bytes of an answer after which nobody reads on."""


class Outcome(NamedTuple):
    """What the client saw.

    Attributes:
        data: what came back.
        reset: whether the daemon closed with bytes of the request unread.
        ended: whether it closed while the client was there.
    """

    data: bytes
    reset: bool
    ended: bool


async def exchange(folder: str, case: Case, asks: Meaning) -> Outcome:
    """Send the case to its socket in ``folder``. Raises ``OSError`` where nobody takes the connection."""
    loop = asyncio.get_running_loop()
    data, reset = b"", False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await loop.sock_connect(connection, f"{folder}/{case.socket}")
        try:
            async with asyncio.timeout(PATIENCE):
                for number, piece in enumerate(case.pieces):
                    if number and case.pause:
                        await asyncio.sleep(case.pause)
                    await loop.sock_sendall(connection, piece)
            if case.ending is Ending.HALF_CLOSE:
                connection.shutdown(socket.SHUT_WR)
        except ConnectionError:
            reset = True
        except TimeoutError:
            return Outcome(data, reset, False)
        if case.ending is Ending.CLOSE:
            return Outcome(data, reset, False)
        try:
            async with asyncio.timeout(PATIENCE if asks.whole else case.hold):
                while len(data) < _ENOUGH:
                    more = await loop.sock_recv(connection, _ENOUGH)
                    if not more:
                        break
                    data += more
        except ConnectionError:
            reset = True
        except TimeoutError:
            return Outcome(data, reset, False)
    return Outcome(data, reset, True)


async def stand_around(folder: str, size: int) -> None:
    """Connect so many times, say half of something each time, and leave without a word when cancelled."""
    loop = asyncio.get_running_loop()
    with ExitStack() as crowd:
        for number in range(size):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            crowd.enter_context(one)
            await loop.sock_connect(one, f"{folder}/{SOCKETS[number % len(SOCKETS)]}")
            await loop.sock_sendall(one, b"source=work\nintended")
        await loop.create_future()


def wrong(case: Case, asks: Meaning, outcome: Outcome, grounds: Sequence[Ground]) -> str | None:
    """What is wrong with the outcome if the daemon decided on one of these grounds; ``None`` for nothing."""
    if case.ending is Ending.CLOSE:
        return None
    if not asks.whole:
        return f"an answer to half a request: {outcome.data!r}" if outcome.data else None
    if outcome.reset and asks.legal:
        return f"closed with bytes unread, after {outcome.data!r}"
    if not outcome.ended:
        return f"no end within {PATIENCE:.0f} s, after {outcome.data!r}"
    right = answers(asks, grounds)
    if case.socket != POLICY:
        right = {text + b"\n" if text else NOTHING for text in right}
    if outcome.reset:
        right.add(NOTHING)
    if outcome.data in right:
        return None
    return f"expected {' or '.join(map(repr, sorted(right)))}, found {outcome.data!r}"
