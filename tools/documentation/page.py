"""A manual page as a value, and plain text as the blocks of one."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum


class Face(Enum):
    """How a word is set."""

    PLAIN = "R"
    LITERAL = "B"
    """To be typed as it stands."""
    PLACE = "I"
    """Stands for something else."""


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of a line."""

    text: str
    face: Face = Face.PLAIN


Line = tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text that is filled."""

    text: Line


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Lines that are kept as they are."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """A word, an option or a path, and what it means."""

    term: Line
    text: Line


@dataclass(frozen=True, slots=True)
class Heading:
    """Heads a part of a section."""

    text: Line


Block = Paragraph | Verbatim | Term | Heading


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, in capitals, and what is below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A manual page; ``title`` is the rest of the line that says what ``name`` is."""

    name: str
    number: int
    title: str
    sections: tuple[Section, ...]

    @property
    def file(self) -> str:
        return f"{self.name}.{self.number}"


def literal(text: str) -> Line:
    return (Word(text, Face.LITERAL),)


_LITERAL = re.compile(r"``(.+?)``|(?<!\S)(--[a-z][a-z-]*)|\b([\w.-]+\([1-9]\))")


def line(text: str) -> Line:
    """Text in which what is in double backquotes, an option and the name of a page are set as literals."""
    words: list[Word] = []
    end = 0
    for found in _LITERAL.finditer(text):
        words.append(Word(text[end : found.start()]))
        words.append(Word(found[1] or found[2] or found[3], Face.LITERAL))
        end = found.end()
    words.append(Word(text[end:]))
    return tuple(word for word in words if word.text)


def blocks(text: str) -> Iterator[Block]:
    """Plain text as blocks: paragraphs, and what is indented as terms or, if it is none, verbatim."""
    for chunk in re.split(r"\n\s*\n", text.strip("\n")):
        lines = chunk.splitlines()
        if all(line_of_it.startswith(" ") for line_of_it in lines):
            lines = textwrap.dedent(chunk).splitlines()
            other: Block = Verbatim(tuple(lines))
        else:
            other = Paragraph(line(" ".join(map(str.strip, lines))))
        yield from _terms(lines) or [other]


def _terms(lines: Sequence[str]) -> list[Block]:
    """Lines of which each is a term and, after two blanks or indented below it, its meaning; else none."""
    found: list[tuple[str, list[str]]] = []
    for text in lines:
        if text.startswith(" "):
            if not found:
                return []
            found[-1][1].append(text.strip())
        else:
            term, _, meaning = text.partition("  ")
            found.append((term, [meaning.strip()] if meaning else []))
    if not all(meaning for _, meaning in found):
        return []
    return [Term(literal(term), line(" ".join(meaning))) for term, meaning in found]
