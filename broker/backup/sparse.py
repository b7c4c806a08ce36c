"""Where the data of a sparse file are, in both forms that GNU tar writes (``spec/backup.md`` 3.4)."""

from __future__ import annotations

from collections.abc import Mapping

from broker.backup.blocks import BLOCK, MOST_DIGITS, Blocks
from qubesd.errors import QubesError

_MOST_EXTENTS = 1 << 20
_RECORDS = b"GNU.sparse."

Extents = list[tuple[int, int]]
"""Places and lengths in bytes, in order."""


def is_sparse(records: Mapping[bytes, bytes]) -> bool:
    """Whether a member's records say that it is."""
    return any(key.startswith(_RECORDS) for key in records)


def newer(blocks: Blocks, records: Mapping[bytes, bytes], stored: int) -> tuple[bytes, int, Extents]:
    """The name, size and data of a file of form 1.0, whose list stands before its data.

    Args:
        stored: the bytes that list and data take.
    """
    version = records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")
    if version != (b"1", b"0") or not {b"GNU.sparse.name", b"GNU.sparse.realsize"} <= records.keys():
        raise QubesError(f"{blocks.name!r} is sparse in a way that is not known")
    size = blocks.number(records[b"GNU.sparse.realsize"])
    extents, listed = _listed(blocks)
    _check(blocks, size, extents, stored - listed)
    return records[b"GNU.sparse.name"], size, extents


def older(blocks: Blocks, block: bytes, stored: int) -> tuple[int, Extents]:
    """The size and data of a file of the older form: four pieces in its header, which is ``block``, and 21 in
    each block that follows. ``stored`` is the bytes that the data take."""
    extents = _pieces(block[386:482])
    size, more = _octal(block[483:495]), block[482]
    while more:
        block = blocks.exactly(BLOCK)
        extents += _pieces(block[:504])
        more = block[504]
        if len(extents) > _MOST_EXTENTS:
            raise QubesError(f"{blocks.name!r} is in too many pieces")
    _check(blocks, size, extents, stored)
    return size, extents


def _listed(blocks: Blocks) -> tuple[Extents, int]:
    """The list of where the data are, and how many bytes it took."""
    listed, rest = 0, b""

    def number() -> int:
        nonlocal listed, rest
        while b"\n" not in rest:
            if len(rest) > MOST_DIGITS:
                raise QubesError(f"{blocks.name!r}: the list of its data cannot be read")
            rest += blocks.exactly(BLOCK)
            listed += BLOCK
        digits, _, rest = rest.partition(b"\n")
        return blocks.number(digits)

    count = number()
    if count > _MOST_EXTENTS:
        raise QubesError(f"{blocks.name!r} is in too many pieces")
    return [(number(), number()) for _ in range(count)], listed


def _check(blocks: Blocks, size: int, extents: Extents, stored: int) -> None:
    """``QubesError`` unless the pieces follow each other inside the file and are what is stored."""
    end = 0
    for start, length in extents:
        if start < end or start + length > size:
            raise QubesError(f"{blocks.name!r}: the pieces of its data overlap, or are behind its end")
        end = start + length
    if sum(length for _, length in extents) != stored:
        raise QubesError(f"{blocks.name!r}: the list of its data does not agree with its size")


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
