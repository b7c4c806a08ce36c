"""The inner archive of one file, which has that file in it and nothing else (``spec/backup.md`` 3.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from broker.backup.members import Kind, Members
from qubesd.errors import QubesError


class Reader:
    """Reads one inner archive from a stream.

    Args:
        name: the file that is expected; any other is refused.
        most: the bytes that it may have at most.
        stored: the bytes that it takes in the archive.
    """

    def __init__(self, stream: IO[bytes], name: str, most: int, stored: int) -> None:
        self._name = name
        self._members = Members(stream, name, stored)
        self._entries = iter(self._members)
        entry = next(self._entries, None)
        if entry is None or entry.kind is not Kind.FILE:
            raise QubesError(f"{name!r} is no plain file")
        if entry.name != name.encode("ascii"):
            raise QubesError(f"{name!r} holds another file")
        if entry.size > most:
            raise QubesError(f"{name!r} has {entry.size} bytes, at most {most} are expected")
        self.entry = entry

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """The data with their places, to the end of the archive, which is checked as well."""
        yield from self._members.pieces(self.entry)
        if next(self._entries, None) is not None:
            raise QubesError(f"{self._name!r} is followed by something else")

    def content(self) -> bytes:
        """All of a small file."""
        whole = bytearray(self.entry.size)
        for place, piece in self.pieces():
            whole[place : place + len(piece)] = piece
        return bytes(whole)
