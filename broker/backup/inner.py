"""The inner layer as it is read: one file in a tar archive, dense or sparse (``spec/backup.md`` 3.4).

The bytes are authentic by now, but whoever knows the passphrase may have written anything: names, sizes and
lists are bounded and checked before they are used.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple

from qubesd.errors import QubesError

BLOCK = 512
_PIECE = 1 << 20
_MOST_RECORDS = 64 * 1024
"""Bytes of a member's pax records."""
_MOST_EXTENTS = 1 << 20
_MOST_DIGITS = 16
_MOST_PADDING = 1 << 20
"""Zeros behind the archive; GNU tar writes 20 blocks at once."""
_RECORD = re.compile(rb"([0-9]{1,5}) ([^=\n]{1,64})=")
_RATIO = 1000
_FREE = 1 << 30
"""So many bytes that are not zeros may come of anything; of more, a thousandth must have been read."""
_ZEROS = bytes(_PIECE)

Extents = list[tuple[int, int]]


class Entry(NamedTuple):
    """A file in the archive; ``size`` is its own, in bytes, ``extents`` where its data are."""

    name: str
    size: int
    extents: Extents


class Fuse:
    """Blows where far more comes of an archive than is in it.

    Zeros do not count: they take no place where they go, and the emptiest image is full of them.
    """

    def __init__(self, name: str, read: int) -> None:
        """``read`` is the bytes that the file ``name`` takes in the archive."""
        self._name = name
        self._left = _FREE + _RATIO * read

    def carry(self, piece: bytes) -> None:
        """Take note of this; ``QubesError`` where it is too much."""
        if piece != _ZEROS[: len(piece)]:
            self._left -= len(piece)
            if self._left < 0:
                raise QubesError(f"{self._name!r} unpacks to more than {_RATIO} times what it is; a bomb")


class Reader:
    """Reads one inner archive from a stream.

    Args:
        name: the file that is expected; any other is refused.
        most: the bytes that it may have at most.
        stored: the bytes that it takes in the archive.
    """

    def __init__(self, stream: IO[bytes], name: str, most: int, stored: int) -> None:
        self._stream = stream
        self._name = name
        self._fuse = Fuse(name, stored)
        self.entry = self._head()
        if self.entry.name != name:
            raise QubesError(f"{name!r} holds another file")
        if self.entry.size > most:
            raise QubesError(f"{name!r} has {self.entry.size} bytes, at most {most} are expected")

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """The data with their places, to the end of the archive, which is checked as well."""
        read = 0
        for start, length in self.entry.extents:
            done = 0
            while done < length:
                piece = self._exactly(min(_PIECE, length - done))
                self._fuse.carry(piece)
                yield start + done, piece
                done += len(piece)
            read += length
        if self._exactly(-read % BLOCK).strip(b"\0"):
            raise QubesError(f"{self._name!r} is followed by something else")
        self._end()

    def content(self) -> bytes:
        """All of a small file."""
        whole = bytearray(self.entry.size)
        for place, piece in self.pieces():
            whole[place : place + len(piece)] = piece
        return bytes(whole)

    def _head(self) -> Entry:
        info, block = self._header()
        records: dict[bytes, bytes] = {}
        if info.type == tarfile.XHDTYPE:
            if not 0 <= info.size <= _MOST_RECORDS:
                raise QubesError(f"{self._name!r}: too many records")
            data = self._exactly(info.size)
            self._exactly(-info.size % BLOCK)
            records = _records(data, self._name)
            info, block = self._header()
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.GNUTYPE_SPARSE) or info.linkname:
            raise QubesError(f"{self._name!r} is no plain file")
        stored = self._number(records[b"size"]) if b"size" in records else info.size
        if stored < 0:
            raise QubesError(f"{self._name!r} has a size below nothing")
        if b"GNU.sparse.major" in records:
            return self._sparse(records, stored)
        name = records[b"path"].decode("ascii", "replace") if b"path" in records else info.name
        if info.type == tarfile.GNUTYPE_SPARSE:
            return self._old_sparse(block, name, stored)
        return Entry(name, stored, [(0, stored)] if stored else [])

    def _sparse(self, records: dict[bytes, bytes], stored: int) -> Entry:
        version = records[b"GNU.sparse.major"], records.get(b"GNU.sparse.minor")
        if version != (b"1", b"0") or not {b"GNU.sparse.name", b"GNU.sparse.realsize"} <= records.keys():
            raise QubesError(f"{self._name!r} is sparse in a way that is not known")
        size = self._number(records[b"GNU.sparse.realsize"])
        name = records[b"GNU.sparse.name"].decode("ascii", "replace")
        extents, listed = self._listed()
        return self._checked(Entry(name, size, extents), stored - listed)

    def _listed(self) -> tuple[Extents, int]:
        """The list of where the data are, and how many bytes it took."""
        listed, rest = 0, b""

        def number() -> int:
            nonlocal listed, rest
            while b"\n" not in rest:
                if len(rest) > _MOST_DIGITS:
                    raise QubesError(f"{self._name!r}: the list of its data cannot be read")
                rest += self._exactly(BLOCK)
                listed += BLOCK
            digits, _, rest = rest.partition(b"\n")
            return self._number(digits)

        count = number()
        if count > _MOST_EXTENTS:
            raise QubesError(f"{self._name!r} is in too many pieces")
        return [(number(), number()) for _ in range(count)], listed

    def _old_sparse(self, block: bytes, name: str, stored: int) -> Entry:
        """The older form of GNU tar: four pieces in the header, 21 in each block that follows."""
        extents = _pieces(block[386:482])
        size, more = _octal(block[483:495]), block[482]
        while more:
            block = self._exactly(BLOCK)
            extents += _pieces(block[:504])
            more = block[504]
            if len(extents) > _MOST_EXTENTS:
                raise QubesError(f"{self._name!r} is in too many pieces")
        return self._checked(Entry(name, size, extents), stored)

    def _checked(self, entry: Entry, stored: int) -> Entry:
        """The entry, where its pieces follow each other inside the file and are what is stored."""
        end = 0
        for start, length in entry.extents:
            if start < end or start + length > entry.size:
                raise QubesError(f"{self._name!r}: the pieces of its data overlap, or are behind its end")
            end = start + length
        if sum(length for _, length in entry.extents) != stored:
            raise QubesError(f"{self._name!r}: the list of its data does not agree with its size")
        return entry

    def _number(self, digits: bytes) -> int:
        if not digits.isdigit() or len(digits) > _MOST_DIGITS:
            raise QubesError(f"{self._name!r}: expected a number, found {digits[:32]!r}")
        return int(digits)

    def _header(self) -> tuple[tarfile.TarInfo, bytes]:
        block = self._exactly(BLOCK)
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape"), block
        except (tarfile.HeaderError, ValueError) as error:
            raise QubesError(f"{self._name!r} is in no tar archive") from error

    def _end(self) -> None:
        padding = 0
        while piece := self._stream.read(_PIECE):
            padding += len(piece)
            if padding > _MOST_PADDING or piece.strip(b"\0"):
                raise QubesError(f"{self._name!r} is followed by something else")
        if padding < 2 * BLOCK:
            raise QubesError(f"{self._name!r} is cut short")

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._stream.read(size)
            if not piece:
                raise QubesError(f"{self._name!r} is cut short")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _records(data: bytes, name: str) -> dict[bytes, bytes]:
    """The pax records by their keys: ``LENGTH KEY=VALUE`` and a line end each."""
    found: dict[bytes, bytes] = {}
    while data:
        match = _RECORD.match(data)
        length = int(match[1]) if match else 0
        if match is None or not match.end() < length <= len(data) or data[length - 1 : length] != b"\n":
            raise QubesError(f"{name!r}: its records cannot be read")
        found[match[2]] = data[match.end() : length - 1]
        data = data[length:]
    return found


def _pieces(block: bytes) -> Extents:
    """The pieces of an older list; an empty place ends it."""
    found = []
    for place in range(0, len(block), 24):
        if not block[place]:
            break
        found.append((_octal(block[place : place + 12]), _octal(block[place + 12 : place + 24])))
    return found


def _octal(field: bytes) -> int:
    """A number of a header: octal digits, or bytes where it is large."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        raise QubesError("a number of an older sparse file cannot be read") from None
