"""The outer layer of an archive: which members it has, in which order (``spec/backup.md`` 3.1).

Nothing in this layer is trusted. Its order is strict and every chunk but the last of a file is full, so that
what was cut off, moved or put in shows before anything is decrypted, or when it is.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from broker.backup.records import MOST_RECORDS, parse_records
from qubesd.backup.encryption import OVERHEAD
from qubesd.backup.header import ENCRYPTED, HEADER, HMAC, LONGEST, QUBES
from qubesd.backup.writing import CHUNK
from qubesd.errors import QubesError

BLOCK = 512
_FULL = CHUNK + OVERHEAD
_MOST_MEMBERS = 1 << 18
_MOST_ZEROS = 1 << 20
"""Bytes between members, and behind the last; GNU tar writes 20 blocks at most."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}(/[A-Za-z0-9_.-]{1,64}){0,3}", re.ASCII)
_CHUNK = re.compile(rf"(.+)\.([0-9]{{3}}|[1-9][0-9]{{3,4}}){re.escape(ENCRYPTED)}", re.ASCII)


_KNOWN_RECORDS = frozenset((b"atime", b"ctime", b"mtime", b"uid", b"gid", b"uname", b"gname"))
"""What GNU tar tells ahead of each member in its POSIX format, by which the stock tools write this layer."""


class Member(NamedTuple):
    """A member, and where its content lies, in bytes."""

    name: str
    offset: int
    size: int


class Index(NamedTuple):
    """The members by what they are; ``files`` has the chunks of each file by its path, in order."""

    header: Member
    hmac: Member
    files: dict[str, list[Member]]


def index(file: IO[bytes], place: Path) -> Index:
    """What the archive is made of; nothing of it was read but the heads of its members.

    Raises:
        QubesError: it is none of ours, or not whole.
    """
    found = members(file, place)
    header, hmac = (_expected(found, name, place) for name in (HEADER, HMAC))
    files: dict[str, list[Member]] = {}
    open_path = ""
    for member in found:
        match = _CHUNK.fullmatch(member.name)
        if match is None:
            raise QubesError(
                f"{place}: {member.name!r} has no place in an archive of version 4; "
                "an older one is restored by the stock tools"
            )
        path, number = match[1], int(match[2])
        chunks = files.get(path, [])
        if open_path and path != open_path:
            raise QubesError(f"{place}: the end of {open_path!r} is missing")
        if (files and not chunks and number != 0) or (chunks and not open_path) or number != len(chunks):
            raise QubesError(f"{place}: {member.name!r} is not where it belongs")
        if not files and path != QUBES:
            raise QubesError(f"{place}: expected {QUBES!r}, found {member.name!r}")
        if not OVERHEAD <= member.size <= _FULL:
            raise QubesError(f"{place}: {member.name!r} has {member.size} bytes, which no chunk has")
        files.setdefault(path, []).append(member)
        open_path = path if member.size == _FULL else ""
    if open_path or not files:
        raise QubesError(
            f"{place}: cut short: {f'the end of {open_path!r}' if open_path else QUBES} is missing"
        )
    return Index(header, hmac, files)


def members(file: IO[bytes], place: Path) -> Iterator[Member]:
    """Every member of a file of archives; each is known to be there whole.

    Raises:
        QubesError: it is no such file, cut short, or a member is anything but a plain file.
    """
    length = file.seek(0, 2)
    offset = number = zeros = 0
    while offset < length:
        file.seek(offset)
        block = file.read(BLOCK)
        offset += BLOCK
        if not block.strip(b"\0"):
            zeros += BLOCK
            if zeros > _MOST_ZEROS:
                raise QubesError(f"{place}: at byte {offset}: more zeros than any archive has")
            continue
        zeros = 0
        untrusted_head = _head(block, offset, place)
        if untrusted_head.type == tarfile.XHDTYPE:
            _check_records(file, untrusted_head.size, place)
            file.seek(offset + untrusted_head.size + -untrusted_head.size % BLOCK)
            block = file.read(BLOCK)
            offset = file.tell()
            untrusted_head = _head(block, offset, place)
        member = _member(untrusted_head, offset, place)
        if member.offset + member.size > length:
            raise QubesError(f"{place}: cut short in {member.name!r}")
        number += 1
        if number > _MOST_MEMBERS:
            raise QubesError(f"{place}: more than {_MOST_MEMBERS} members")
        yield member
        offset += member.size + -member.size % BLOCK


def _head(block: bytes, offset: int, place: Path) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
        raise QubesError(f"{place}: before byte {offset}: this is no member of a tar archive") from error


def _check_records(file: IO[bytes], untrusted_size: int, place: Path) -> None:
    """``QubesError`` where an extended header tells more of a member than whose it was, and when."""
    if not 0 <= untrusted_size <= MOST_RECORDS:
        raise QubesError(f"{place}: an extended header has {untrusted_size} bytes, which none has")
    found = parse_records(file.read(untrusted_size), str(place))
    for key in found.keys() - _KNOWN_RECORDS:
        raise QubesError(f"{place}: an extended header has the record {key[:64]!r}, which no member needs")


def _member(untrusted_info: tarfile.TarInfo, offset: int, place: Path) -> Member:
    untrusted_name = untrusted_info.name
    if untrusted_info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or untrusted_info.linkname:
        raise QubesError(f"{place}: {untrusted_name[:64]!r} is no plain file")
    steps = untrusted_name.split("/")
    if not _NAME.fullmatch(untrusted_name) or any(not step.strip(".") for step in steps):
        raise QubesError(f"{place}: {untrusted_name[:64]!r} is no name of a member")
    if untrusted_info.size < 0:
        raise QubesError(f"{place}: {untrusted_name!r} has a size below nothing")
    return Member(untrusted_name, offset, untrusted_info.size)


def _expected(found: Iterator[Member], name: str, place: Path) -> Member:
    member = next(found, None)
    if member is None or member.name != name:
        what = "nothing" if member is None else repr(member.name)
        raise QubesError(f"{place}: expected {name!r}, found {what}; this is no backup of version 4")
    if member.size > LONGEST:
        raise QubesError(f"{place}: {name!r} has {member.size} bytes, at most {LONGEST} are allowed")
    return member
