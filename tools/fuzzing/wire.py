"""The sockets, their bounds, and what can happen to bytes on their way."""

from __future__ import annotations

from itertools import pairwise
from random import Random

POLICY = "policy.sock"
SIMPLE = "policy.EvalSimple"
SCREEN = "policy.EvalGUI"
SOCKETS = (POLICY, SIMPLE, SCREEN)

LINE = 65_536
"""Bytes that a line, and the header of an evaluation, may have at most."""


def spoil_bytes(random: Random, data: bytes) -> bytes:
    """One thing that a wire could do to the bytes."""
    at, draw = random.randint(0, len(data)), random.randrange(7)
    end = min(len(data), at + random.randint(1, 12))
    if draw == 0:
        return data[:at]
    if draw == 1:
        return data[:at] + data[end:]
    if draw == 2:
        return data[:end] + data[at:]
    if draw == 3:
        return data[:at] + random.randbytes(random.randint(1, 6)) + data[at:]
    if draw == 4:
        return data[:at] + random.choice((b"\r", b"\n", b"\n\n", b"=", b"\0", b"\xff", b" ")) + data[at:]
    if draw == 5:
        return data.removesuffix(b"\n" * random.randint(1, 2))
    return data + random.choice(
        (b"\n", b"source=dom0\n\n", random.randbytes(random.choice((5, 500, 50_000))))
    )


def noise(random: Random) -> bytes:
    """Scraps of requests, chance, and very much of one thing."""
    if random.random() < 0.02:
        return random.choice((b"x", b"\n", b"source=work\n", b"\0")) * random.choice((70_000, 400_000))
    if random.random() < 0.5:
        scraps = (
            b"source=work\n",
            b"intended_target=mail\n",
            b"service_and_arg=a.A\n",
            b"\n",
            b"=",
            b"\0",
            b" ",
        )
        return b"".join(random.choices(scraps, k=random.randint(0, 8)))
    return random.randbytes(random.choice((0, 1, 10, 200, 3_000)))


def cut(random: Random, data: bytes) -> tuple[bytes, ...]:
    """The data in one piece or in some, and sometimes byte by byte."""
    draw = random.random()
    if draw < 0.6 or len(data) < 2:
        return (data,)
    if draw < 0.63 and len(data) < 300:
        return tuple(data[at : at + 1] for at in range(len(data)))
    places = sorted({0, len(data), *(random.randint(1, len(data) - 1) for _ in range(random.randint(1, 4)))})
    return tuple(data[start:end] for start, end in pairwise(places))
