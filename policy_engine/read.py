"""Bytes of one policy file → its rules and directives in order, each with its line.

The white-space rules are peculiar and exact (policy language, sections 1.2 and 2.4): lines end at LF, CRLF or
a lone CR and nowhere else; words are parted where ``str.split`` does it. ``parse.py`` gives fields meaning.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from policy_engine.delegation import Reach
from policy_engine.errors import Kind, PolicyError
from policy_engine.model import ANY, Inclusion, NoTarget, Rule
from policy_engine.parse import (
    Directive,
    FieldError,
    Fields,
    read_directive,
    require_redirect,
    require_wildcard,
)

MAX_FILE = 4 * 1024 * 1024
"""Bytes of one policy file. A bound of ours: whatever a file holds, reading it is a matter of seconds."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which file is read, on whose behalf, and in which syntax.

    Attributes:
        file: the path that rules and errors report.
        included_from: the directive that asked for it; ``None`` for a file of a policy directory.
        legacy: ``None`` for the syntax of today; for the old syntax, whose lines lack these two fields, the
            service and argument of every rule.
        frame: the fields that all of its rules stand in; ``None`` for a file that is not framed.
    """

    file: str
    included_from: Inclusion | None = None
    legacy: tuple[str, str] | None = None
    frame: Reach | None = None

    def error(
        self, kind: Kind, message: str, line: int | None = None, column: int | None = None
    ) -> PolicyError:
        """An error that happened here."""
        return PolicyError(kind, message, file=self.file, line=line, column=column)


@dataclass(frozen=True, slots=True)
class DirectiveLine:
    """A directive and where it stands; ``column`` is where its last word, the path, begins."""

    directive: Directive
    line: int
    column: int


Step = list[Rule] | DirectiveLine


Refuse = Callable[[PolicyError], None]
"""Told of an error. Raises it, or takes note and has the rest read without what was wrong."""


def stop(error: PolicyError) -> None:
    """The ``Refuse`` that ends the reading at the first error."""
    raise error


def read(content: bytes, origin: Origin, fields: Fields, refuse: Refuse = stop) -> Iterator[Step]:
    """The steps of a file in order: runs of rules, and the directives between them.

    Steps before a flawed line come before its error, since a directive among them may fail first.

    Args:
        refuse: is told of what is wrong: encoding, or one of the kinds of a line.
    """
    services, arguments, outcomes = fields.services, fields.arguments, fields.outcomes
    sources, targets = fields.sources, fields.targets
    file, included_from = origin.file, origin.included_from
    service, argument = origin.legacy or ("", "")
    first = 2 if origin.legacy is None else 0
    rules: list[Rule] = []
    for number, line, words, is_directive in _statements(content, origin, refuse):
        if is_directive:
            if rules:
                yield rules
                rules = []
            try:
                yield _directive(words, line, number, origin)
            except FieldError as error:
                refuse(_located(error, 0, words, line, number, origin))
            continue
        if len(words) < first + 3:
            refuse(_too_few(words, first, line, number, origin))
            continue
        at = 0
        try:
            if first:
                service = services[words[0]]
                at = 1
                argument = arguments[words[1]]
                if service == ANY:
                    require_wildcard(argument)
            at = first
            source = sources[words[at]]
            at = first + 1
            target = targets[words[at]]
            at = first + 2
            action = outcomes[words[at] if len(words) == at + 1 else " ".join(words[at:])]
            if target.__class__ is NoTarget:
                require_redirect(action)
        except FieldError as error:
            refuse(_located(error, at, words, line, number, origin))
            continue
        rules.append(Rule(service, argument, source, target, action, file, number, included_from))
    if rules:
        yield rules


def lines_of(content: bytes, origin: Origin, refuse: Refuse) -> Iterator[tuple[int, str]]:
    """The numbers, from 1, and texts of the lines. Refuses: encoding."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte {content[error.start]:#04x} at offset {error.start}"
        refuse(origin.error("encoding", f"expected UTF-8, found {found}"))
        return
    yield from enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1)


def _statements(content: bytes, origin: Origin, refuse: Refuse) -> Iterator[tuple[int, str, list[str], bool]]:
    """The lines that are no comments: number, text, words, and whether it is a directive.

    A line in the old syntax is given as it reads after the replacements, which move nothing.
    """
    lines = lines_of(content, origin, refuse)
    if origin.legacy is None:
        for number, line in lines:
            words = line.split()
            if words and (head := words[0][0]) != "#":
                yield number, line, words, head == "!"
        return
    for number, line in lines:
        stripped = line.lstrip()
        if not stripped or stripped[0] == "#":
            continue
        line = line.replace("$include:", "!include ").replace("$", "@").replace(",", " ")
        # A comma in front became a blank, and keeps what follows from being a directive.
        yield number, line, line.split(), line[-len(stripped)] == "!"


def _directive(words: list[str], line: str, number: int, origin: Origin) -> DirectiveLine:
    """Raises ``FieldError``, its offset counted in the words joined by blanks."""
    directive = read_directive(" ".join(words), legacy=origin.legacy is not None)
    return DirectiveLine(directive, number, _starts(line)[-1])


def _too_few(words: list[str], first: int, line: str, number: int, origin: Origin) -> PolicyError:
    expected = "SERVICE ARGUMENT SOURCE TARGET ACTION" if first else "SOURCE TARGET ACTION"
    message = f"expected {expected}, found only {len(words)} of these words"
    return origin.error("field-count", message, number, len(line.rstrip()) + 1)


def _located(
    error: FieldError, at: int, words: list[str], line: str, number: int, origin: Origin
) -> PolicyError:
    """The error in its place; its offset counts in the words from number ``at`` on, joined by blanks."""
    before = " ".join(words[at:])[: error.offset]
    word = at + before.count(" ")
    column = _starts(line)[word] + len(before) - (before.rfind(" ") + 1)
    return origin.error(error.kind, error.message, number, column)


def _starts(line: str) -> list[int]:
    """The column, from 1, at which each word of the line begins."""
    return [word.start() + 1 for word in re.finditer(r"\S+", line)]
