"""The records of an extended header of POSIX tar: ``LENGTH KEY=VALUE`` and a line end each."""

from __future__ import annotations

import re

from qubesd.errors import QubesError

MOST_RECORDS = 64 * 1024
"""Bytes of the records before one member."""
_RECORD = re.compile(rb"([0-9]{1,5}) ([^=\n]{1,64})=")


def parse_records(data: bytes, name: str) -> dict[bytes, bytes]:
    """The values by their keys, of which the last of each counts; ``name`` is the file that errors name.

    Raises:
        QubesError: they cannot be read.
    """
    found: dict[bytes, bytes] = {}
    start = 0
    while start < len(data):
        match = _RECORD.match(data, start)
        end = start + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise QubesError(f"{name!r}: its records cannot be read")
        found[match[2]] = data[match.end() : end - 1]
        start = end
    return found
