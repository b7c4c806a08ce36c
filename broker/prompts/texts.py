"""Texts of others as they can be shown: harmless to a terminal and to the eye, and bounded.

Printable ASCII stands for itself. Everything else is escaped as Python writes it: what moves the cursor, what
is drawn from right to left, what only looks like a letter; and the blanks with which a text could push itself
to another place. A backslash stays as it is, since a policy daemon escapes in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MOST = 300
"""Characters of one text that are shown."""


class Shown(NamedTuple):
    """``text`` as it can be shown, and how many characters of the original are missing at its end."""

    text: str
    missing: int = 0


def shown(untrusted_text: str, most: int = MOST) -> Shown:
    """As much of the text as makes no more than ``most`` characters."""
    whole: list[str] = []
    room = most
    for piece in _pieces(untrusted_text):
        room -= len(piece)
        if room < 0:
            return Shown("".join(whole), len(untrusted_text) - len(whole))
        whole.append(piece)
    return Shown("".join(whole))


def service_parts(service: str) -> tuple[str, str]:
    """What leads to the last part of a service's name, with its dot, and that part, which is to be marked: it
    tells what the call does. Without a dot all is the last part."""
    head, dot, last = service.partition(".")
    return (head + dot, last) if last else ("", service)


def time_left(seconds: float) -> str:
    """As a clock shows it; nothing is less than nothing."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02}"


def _pieces(untrusted_text: str) -> Iterator[str]:
    end = len(untrusted_text) - 1
    for index, character in enumerate(untrusted_text):
        pads = character == " " and (index in (0, end) or untrusted_text[index - 1] == " ")
        plain = character.isascii() and character.isprintable() and not pads
        yield character if plain else _escaped(character)


def _escaped(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
