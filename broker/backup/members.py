"""The members of an inner archive, as GNU tar writes them in both of its formats (``spec/backup.md`` 3.4).

The bytes are authentic by now, but whoever knows the passphrase may have written anything: names, sizes and
lists are bounded and checked before they are used. What a name may be is for those to say who use it.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import IO, NamedTuple

from broker.backup.blocks import BLOCK, Blocks
from broker.backup.records import MOST_RECORDS, parse_records
from broker.backup.sparse import Extents, is_sparse, newer, older
from qubesd.errors import QubesError

_PIECE = 1 << 20
LONGEST_PATH = 4096
"""Bytes of a path, as Linux has it."""
_BEFORE = {
    tarfile.XHDTYPE: (MOST_RECORDS, "too many records"),
    tarfile.GNUTYPE_LONGNAME: (LONGEST_PATH + 1, "a name is too long"),
    tarfile.GNUTYPE_LONGLINK: (LONGEST_PATH + 1, "the target of a link is too long"),
}
"""What may stand before a member to tell more of it, once each: the most bytes, and what more of them are."""
_SECONDS = re.compile(rb"(-?[0-9]{1,12})(\.[0-9]*)?")
_MOST_SECONDS = 10**12


class Kind(Enum):
    """What a member is; ``OTHER`` is a device, what is not known, or what is no link and leads somewhere."""

    FILE = auto()
    FOLDER = auto()
    SYMLINK = auto()
    LINK = auto()
    PIPE = auto()
    OTHER = auto()


_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.GNUTYPE_SPARSE: Kind.FILE,
    tarfile.DIRTYPE: Kind.FOLDER,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.LINK,
    tarfile.FIFOTYPE: Kind.PIPE,
}
_LINKS = (Kind.SYMLINK, Kind.LINK)


class Entry(NamedTuple):
    """A member.

    Attributes:
        name: its path, which may be any bytes but NUL; a folder's has no slash at its end.
        size: of a file, in bytes, with its holes; 0 for anything else.
        extents: where the data of a file are.
        link: where a link leads, empty for anything else but ``OTHER``; a hard link to a path as ``name`` is.
        mode: who may read, write and execute it; nothing else of a mode is told.
        mtime: seconds since 1970.
    """

    kind: Kind
    name: bytes
    size: int
    extents: Extents
    link: bytes
    mode: int
    mtime: int


class Members:
    """The members in a stream, each once, in order. Iteration ends at the archive's end, which is checked.

    Args:
        name: the file that the stream is, which errors name.
        stored: the bytes that it takes in the archive.
    """

    def __init__(self, stream: IO[bytes], name: str, stored: int) -> None:
        self._name = name
        self._blocks = Blocks(stream, name, stored)

    def __iter__(self) -> Iterator[Entry]:
        """Before the next is asked for, the data of this one must have been read.

        Raises:
            QubesError: the stream is cut short, no tar archive, or not of a form that is known.
        """
        while (entry := self._next()) is not None:
            yield entry

    def pieces(self, entry: Entry) -> Iterator[tuple[int, bytes]]:
        """The data of the newest member with their places, and what fills its last block."""
        read = 0
        for start, length in entry.extents:
            done = 0
            while done < length:
                piece = self._blocks.exactly(min(_PIECE, length - done))
                yield start + done, piece
                done += len(piece)
            read += length
        if self._blocks.exactly(-read % BLOCK).strip(b"\0"):
            raise QubesError(f"{self._name!r} is followed by something else")

    def _next(self) -> Entry | None:
        before: dict[bytes, bytes] = {}
        while (block := self._blocks.exactly(BLOCK)).strip(b"\0"):
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.HeaderError, ValueError) as error:
                raise QubesError(f"{self._name!r} is in no tar archive") from error
            if info.type not in _BEFORE or info.type in before:
                return self._entry(info, block, before)
            before[info.type] = self._before(info)
        if before:
            raise QubesError(f"{self._name!r} is cut short")
        self._blocks.end()
        return None

    def _before(self, info: tarfile.TarInfo) -> bytes:
        most, complaint = _BEFORE[info.type]
        if not 0 <= info.size <= most:
            raise QubesError(f"{self._name!r}: {complaint}")
        data = self._blocks.exactly(info.size)
        self._blocks.exactly(-info.size % BLOCK)
        return data

    def _entry(self, info: tarfile.TarInfo, block: bytes, before: Mapping[bytes, bytes]) -> Entry:
        records = parse_records(before.get(tarfile.XHDTYPE, b""), self._name)
        kind = _KINDS.get(info.type, Kind.OTHER)
        name = _first(records.get(b"path"), before.get(tarfile.GNUTYPE_LONGNAME), info.name)
        link = _first(records.get(b"linkpath"), before.get(tarfile.GNUTYPE_LONGLINK), info.linkname)
        size = self._blocks.number(records[b"size"]) if b"size" in records else info.size
        if size < 0 or (size and kind is not Kind.FILE):
            raise QubesError(f"{self._name!r} has a size below nothing, or data where none belong")
        extents = [(0, size)] if size else []
        if kind is Kind.FILE and is_sparse(records):
            name, size, extents = newer(self._blocks, records, size)
        elif info.type == tarfile.GNUTYPE_SPARSE:
            size, extents = older(self._blocks, block, size)
        if kind is Kind.FOLDER:
            name = name.rstrip(b"/")
        if b"\0" in name or b"\0" in link:
            raise QubesError(f"{self._name!r}: a name has a NUL in it")
        if link and kind not in _LINKS:
            kind = Kind.OTHER
        return Entry(kind, name, size, extents, link, info.mode & 0o777, self._mtime(info, records))

    def _mtime(self, info: tarfile.TarInfo, records: Mapping[bytes, bytes]) -> int:
        seconds = int(info.mtime)
        if b"mtime" in records:
            match = _SECONDS.fullmatch(records[b"mtime"])
            seconds = int(match[1]) if match else _MOST_SECONDS
        if abs(seconds) >= _MOST_SECONDS:
            raise QubesError(f"{self._name!r}: the time of a member cannot be read")
        return seconds


def _first(record: bytes | None, long: bytes | None, short: str) -> bytes:
    """A name, from where it is whole."""
    return record or (long or b"").removesuffix(b"\0") or short.encode("utf-8", "surrogateescape")
