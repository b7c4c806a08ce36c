"""The header of an archive, which says how the rest is to be read (``spec/backup.md`` 3.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qubesd.backup.filters import DEFAULT, check_filter
from qubesd.errors import QubesError

HEADER = "backup-header"
HMAC = "backup-header.hmac"
QUBES = "qubes.xml"
ENCRYPTED = ".enc"
LONGEST = 4096
"""Bytes of the header, and of its authenticated copy."""

_VALUE = re.compile(r"[A-Za-z0-9-]*", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Header:
    """``compression`` is the name of a program, ``None`` where nothing is compressed."""

    backup_id: str
    compression: str | None

    def dump(self) -> bytes:
        lines = [
            "version=4",
            "encrypted=True",
            f"compressed={self.compression is not None}",
            f"compression-filter={self.compression or DEFAULT}",
            "hmac-algorithm=scrypt",
            f"backup-id={self.backup_id}",
        ]
        return "".join(f"{line}\n" for line in lines).encode("ascii")


def parse(data: bytes) -> Header:
    """The header that these authenticated bytes are. Raises ``QubesError`` for what is no archive of ours."""
    found: dict[str, str] = {}
    try:
        lines = data.decode("ascii").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise QubesError("the header is not ASCII") from None
    for line in lines:
        key, sign, value = line.partition("=")
        if not sign or "=" in value or key in found or not _VALUE.fullmatch(value):
            raise QubesError(f"the header has a line that is none: {line[:64]!r}")
        found[key] = value
    if not lines[0].startswith("version=") or found["version"] != "4":
        raise QubesError("not of version 4; an older archive is restored by the stock tools")
    wanted = {"encrypted": "True", "hmac-algorithm": "scrypt"}
    for key, value in wanted.items():
        if found.get(key) != value:
            raise QubesError(f"the header says nothing that is known of {key!r}")
    if not _ID.fullmatch(found.get("backup-id", "")):
        raise QubesError("the header has no identifier of the backup")
    if found.get("compressed") not in ("True", "False"):
        raise QubesError("the header does not say whether it is compressed")
    if found["compressed"] == "False":
        return Header(found["backup-id"], None)
    return Header(found["backup-id"], check_filter(found.get("compression-filter", DEFAULT)))
