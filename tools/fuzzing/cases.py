"""What is sent: right requests, spoiled ones, noise, and ways to break a connection off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random

from tools.fuzzing.evaluations import evaluation
from tools.fuzzing.requests import request, spoiled_request
from tools.fuzzing.wire import POLICY, SOCKETS, cut, noise


class Ending(Enum):
    """What the client does when it has sent everything."""

    WAIT = "wait"
    HALF_CLOSE = "half-close"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Case:
    """One connection.

    Attributes:
        kind: what it is counted as.
        pieces: what is sent, one send for each.
        pause: seconds between two pieces.
        hold: seconds that a client stays that has no answer to wait for.
    """

    kind: str
    socket: str
    pieces: tuple[bytes, ...]
    ending: Ending
    pause: float = 0.0
    hold: float = 0.0

    @property
    def sent(self) -> bytes:
        return b"".join(self.pieces)


def case(seed: int, number: int) -> Case:
    """Case ``number``, which follows from the seed and the number alone."""
    random = Random(f"{seed}/case/{number}")
    draw = random.random()
    if draw < 0.25:
        kind, socket, data = "request", POLICY, request(random)
    elif draw < 0.60:
        kind, socket, data = "spoiled request", POLICY, spoiled_request(random)
    elif draw < 0.72:
        kind, socket, data = "evaluation", *evaluation(random, right=True)
    elif draw < 0.90:
        kind, socket, data = "spoiled evaluation", *evaluation(random, right=False)
    else:
        kind, socket, data = "noise", random.choice(SOCKETS), noise(random)
    ending = Ending.HALF_CLOSE
    if socket == POLICY and random.random() < 0.7:
        # As the qrexec daemon does it, which never closes its direction.
        ending = Ending.WAIT
    elif socket != POLICY and kind != "evaluation" and random.random() < 0.1:
        ending = Ending.WAIT
    if random.random() < 0.08:
        kind, ending = "broken off", Ending.CLOSE
        if random.random() < 0.5:
            data = data[: random.randint(0, len(data))]
    pieces, slow = cut(random, data), random.random()
    return Case(
        kind,
        socket,
        pieces,
        ending,
        pause=0.0 if slow < 0.9 else 0.002 if slow < 0.99 else random.uniform(0.05, 1.0) / len(pieces),
        hold=1.0 if random.random() < 0.02 else 0.03,
    )
