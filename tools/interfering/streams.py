"""Alice's event streams, and what may be compared of two of them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.wire import ESTABLISHED, EventReader, encode_event

PATIENCE = 60.0
"""Seconds until an answer is no more waited for."""

_ENDED = b"(the stream ended)"
_CHUNK = 1 << 16
_BESIDE = ("device-added:", "device-removed:", "device-list-change:", "domain-qdb-change:")
"""Devices are looked for beside the calls, so that how soon their news come is up to the clock."""


@dataclass(frozen=True, slots=True)
class News:
    """What came on a stream: events that calls cause, and those that come ``beside`` them, each in order."""

    in_turn: Sequence[bytes] = ()
    beside: Sequence[bytes] = ()


class Stream:
    """One connection that a call for events was sent on; ``begin`` is what it answers at first."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = EventReader()
        self.begin = b""
        while len(self.begin) < len(ESTABLISHED) and (more := connection.recv(_CHUNK)):
            self.begin += more
        self.open = self.begin.startswith(ESTABLISHED)
        if not self.open:
            connection.close()

    def news(self, mark: bytes | None) -> News:
        """What came since the last time: until this event, or what is there already."""
        data = self._until(mark) if mark else self._waiting()
        in_turn: list[bytes] = []
        beside: list[bytes] = []
        for event in self._reader.feed(data):
            message = encode_event(event.subject, event.name, event.keys.items())
            (beside if event.name.startswith(_BESIDE) else in_turn).append(message)
        if not self.open:
            self.close()
            in_turn.append(_ENDED)
        return News(in_turn, beside)

    def close(self) -> None:
        self._connection.close()

    def _until(self, mark: bytes) -> bytes:
        data = b""
        while mark not in data:
            more = self._connection.recv(_CHUNK)
            if not more:
                self.open = False
                break
            data += more
        return data

    def _waiting(self) -> bytes:
        data = b""
        self._connection.setblocking(False)
        try:
            while more := self._connection.recv(_CHUNK):
                data += more
            self.open = False
        except BlockingIOError:
            pass  # that was all, for now
        self._connection.settimeout(PATIENCE)
        return data


@dataclass(slots=True)
class Compared:
    """Two streams of the same kind, one of each daemon, and of the news beside calls those that only one of
    them had yet."""

    early: tuple[Sequence[bytes], Sequence[bytes]] = field(default=((), ()))

    def differ(self, one: News, other: News) -> tuple[bytes, bytes] | None:
        """What differs: other events, or news that one of them had and the other did not by the next time."""
        if one.in_turn != other.in_turn:
            return b"\n".join(one.in_turn), b"\n".join(other.in_turn)
        before = self.early
        pair = [*before[0], *one.beside], [*before[1], *other.beside]
        shared = min(map(len, pair))
        if pair[0][:shared] != pair[1][:shared] or shared < max(map(len, before)):
            return b"\n".join(pair[0]), b"\n".join(pair[1])
        self.early = pair[0][shared:], pair[1][shared:]
        return None
