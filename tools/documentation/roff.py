"""A page in the language of ``man``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tools.documentation.page import Block, Face, Heading, Line, Page, Paragraph, Term, Verbatim

_GLYPHS = str.maketrans(
    {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}
)
"""Characters that are typed as they stand, which a typesetter would make others of."""


def roff(page: Page, source: str) -> str:
    """The source of the page; ``source`` is the program and version that it belongs to."""
    return "".join(f"{text}\n" for text in _page(page, source))


def _page(page: Page, source: str) -> Iterator[str]:
    yield r".\" Written by tools/manuals; change the program's parser instead."
    yield f'.TH {page.name.upper()} {page.number} "" "{source}" "Qubes OS Admin API"'
    # Neither hyphens nor blanks are put into what is typed, after a new heading either.
    yield ".nr HY 0"
    yield ".nh"
    yield ".ad l"
    yield ".SH NAME"
    yield rf"{_escaped(page.name)} \- {_escaped(page.title)}"
    for section in page.sections:
        yield f".SH {section.title}"
        yield from _blocks(section.blocks)


def _blocks(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Paragraph(text):
                yield ".PP"
                yield _set(text)
            case Term(term, text):
                yield ".TP"
                yield _set(term)
                yield _set(text)
            case Heading(text):
                yield ".SS " + _set(text)
            case Verbatim(lines):
                yield ".PP"
                yield ".EX"
                yield from (_guarded(_escaped(text)) for text in lines)
                yield ".EE"


def _set(line: Line) -> str:
    return _guarded(
        "".join(
            _escaped(word.text)
            if word.face is Face.PLAIN
            else rf"\f{word.face.value}{_escaped(word.text)}\fR"
            for word in line
        )
    )


def _escaped(text: str) -> str:
    return "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in text.translate(_GLYPHS))


def _guarded(text: str) -> str:
    """A line of text that is no request, whatever it begins with."""
    return rf"\&{text}" if text.startswith(".") else text
