"""Inner archives without an end, of which more comes than whoever stored them has."""

from __future__ import annotations

import tarfile
from collections import deque
from typing import IO, cast

import pytest

from broker.backup.members import Members
from qubesd.errors import QubesError
from tests.broker.backup.homes import HOME, entry

TALKATIVE = entry(HOME, pax_headers={"comment": "x" * 60_000})


class Endless:
    """These bytes, and then a piece again and again."""

    def __init__(self, first: bytes, piece: bytes) -> None:
        self._rest = first
        self._piece = piece

    def read(self, size: int) -> bytes:
        while not self._rest:
            self._rest = self._piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        pytest.param(
            entry(HOME, form=tarfile.GNU_FORMAT, size=1 << 40), b"x" * (1 << 20), id="data-of-a-file"
        ),
        pytest.param(b"", TALKATIVE, id="records"),
    ],
)
def test_a_bomb(first: bytes, piece: bytes) -> None:
    members = Members(cast(IO[bytes], Endless(first, piece)), HOME, 1 << 10)
    taken = (piece for member in members for piece in members.pieces(member))
    with pytest.raises(QubesError, match="a bomb"):
        deque(taken, maxlen=0)
