"""What can be wrong with a policy or with the facts it is judged by.

A denial is an answer and has no exception; these are for text and data that have no meaning at all.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    # one line, in the order in which it is checked
    "field-count",
    "service-chars",
    "argument-chars",
    "argument-plus",
    "wildcard-argument",
    "token",
    "action-unknown",
    "param-syntax",
    "param-duplicate",
    "param-bool",
    "param-unknown",
    "default-needs-target",
    "directive-params",
    "directive-unknown",
    # of the delegation dialect
    "dialect",
    "define",
    "limit",
    "frame",
    "value",
    "remember",
    "redirect",
    "needs-core",
    # a directive's object
    "not-a-file",
    "not-a-directory",
    # of lint: what the loader takes
    "include-path",
    # the set of files
    "file-name",
    "io",
    "encoding",
    "include-loop",
]

KINDS: frozenset[str] = frozenset(get_args(Kind))


class PolicyError(Exception):
    """The policy cannot be loaded; nothing of it is in force.

    Attributes:
        kind: one word of ``KINDS``.
        file: the path that the error is about.
        line: counted from 1 in ``file``; ``None`` where the error is about the file as a whole.
        column: counted from 1 in characters of that line; ``None`` where there is no line.
        message: what was expected and what was found, without the place.
    """

    def __init__(
        self, kind: Kind, message: str, *, file: str, line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(kind, message, file, line, column)
        self.kind: Kind = kind
        self.file = file
        self.line = line
        self.column = column
        self.message = message

    def __str__(self) -> str:
        place = quoted_path(self.file)
        if self.line is not None:
            place += f":{self.line}"
        if self.column is not None:
            place += f": column {self.column}"
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class ClosedFrame:
    """A frame through which nothing is allowed, since its file is not as it should be.

    Attributes:
        error: what is wrong.
        path: of the framed file, links resolved.
        rule: ``FILE:LINE`` of the rule that includes it.
    """

    error: PolicyError
    path: str
    rule: str

    @property
    def missing(self) -> bool:
        """Whether there is no such file, which may be because nobody has written it yet."""
        return self.error.kind == "not-a-file"

    @property
    def outcome(self) -> str:
        return f"the frame of {self.rule} is closed"

    def __str__(self) -> str:
        return f"{self.error}; {self.outcome}"


class WorldError(Exception):
    """Facts that contradict themselves or do not have the shape of a system description."""


def quoted(text: str) -> str:
    """``text`` in quotes, safe for a terminal and a log: one line, ASCII, at most some 80 characters."""
    return ascii(str(text if len(text) <= 64 else f"{text[:61]}..."))


def quoted_path(path: str) -> str:
    """``path`` as it is where it is plain, in quotes where it holds anything a log could be fooled by."""
    return path if path.isascii() and path.isprintable() and path else ascii(path)
