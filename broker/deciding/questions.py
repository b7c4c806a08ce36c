"""What the policy sockets are asked: bytes to questions (``spec/policy-daemon.md`` 1.1 and 2), no sockets.

A request is taken in whole before anything in it is looked at: the C qrexec daemon loses a good answer where
the other side closes with unread bytes, and then decides by its fallback.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from policy_engine import Request
from policy_engine.errors import quoted

MAX_LINE = 65_536
"""Bytes of one line, and of the header of an evaluation, without what ends it."""

_SWITCHES = ("assume_yes_for_ask", "just_evaluate")
_YES_OR_NO = {"yes": True, "no": False}
_REQUIRED = ("source", "intended_target", "service_and_arg")
_KEYS = frozenset((*_REQUIRED, "requested_source", *_SWITCHES))

MAX_REQUEST = len(_KEYS) * (MAX_LINE + 1) + 1
"""Bytes of the longest request that can be right: each key once, each line as long as it may be."""

_MAX_ASKED = 96
_ASKED_SOURCE = re.compile(rb"[A-Za-z0-9@_.-]{1,31}")
_ASKED_TARGET = re.compile(rb"[A-Za-z0-9@_.-]{1,63}")


class QuestionError(ValueError):
    """The bytes are no question. Whoever sent them gets no answer; the text is for the log."""


class Question(NamedTuple):
    """One question to the policy.

    Attributes:
        assume_yes: take an ``ask`` as if the user had said yes to the requested target.
        just_evaluate: answer with the policy's word alone; nobody is asked or told.
        screen: the answer is only for a GUI qube of this name that both ends belong to; ``None`` for anyone.
    """

    request: Request
    assume_yes: bool = False
    just_evaluate: bool = False
    screen: str | None = None


class Reader(Protocol):
    """Takes the bytes of one connection in, as they come."""

    ending: bytes
    """What the answer's text is followed by."""

    exact: bool
    """Whether nothing has come after the request."""

    def feed(self, untrusted_data: bytes | memoryview) -> bool:
        """Whether the request is whole; what comes after that is dropped. Raises ``QuestionError`` once there
        is more of it than a request can have."""

    def question(self) -> Question:
        """The question, once the request is whole or the sender has ended it. Raises ``QuestionError``."""


class LinesReader:
    """``policy.sock``: lines of ``KEY=VALUE`` up to an empty one, or to the end."""

    ending = b""

    __slots__ = ("_end", "_untrusted", "exact")

    def __init__(self) -> None:
        self.exact = True
        self._untrusted = bytearray()
        self._end: int | None = None

    def feed(self, untrusted_data: bytes | memoryview) -> bool:
        if self._end is not None:
            return True
        untrusted = self._untrusted
        seen = max(len(untrusted) - 1, 0)
        untrusted += untrusted_data
        if untrusted[:1] == b"\n":
            self._end = 0
        elif (found := untrusted.find(b"\n\n", seen)) >= 0:
            self._end = found
        elif len(untrusted) > MAX_REQUEST:
            raise QuestionError(f"more than {MAX_REQUEST} bytes without an empty line")
        if self._end is None:
            return False
        self.exact = len(untrusted) == self._end + (2 if self._end else 1)
        return True

    def question(self) -> Question:
        values: dict[str, str] = {}
        for key, untrusted_value in _pairs(bytes(self._untrusted[: self._end])):
            if key in values:
                raise QuestionError(f"{quoted(key)} is there twice")
            if key not in _KEYS:
                raise QuestionError(f"unknown key {quoted(key)}")
            if key in _SWITCHES and untrusted_value not in _YES_OR_NO:
                raise QuestionError(f"{key}: expected yes or no, found {quoted(untrusted_value)}")
            values[key] = untrusted_value
        for key in _REQUIRED:
            if key not in values:
                raise QuestionError(f"{key!r} is missing")
        request = Request.of(
            values["service_and_arg"],
            values["source"],
            values["intended_target"],
            values.get("requested_source") or None,
        )
        assume_yes, just_evaluate = (_YES_OR_NO[values.get(switch, "no")] for switch in _SWITCHES)
        return Question(request, assume_yes, just_evaluate)


def _pairs(untrusted_text: bytes) -> Iterator[tuple[str, str]]:
    """Key and value of each line; only LF ends a line, so a CR stays in its value."""
    for untrusted_line in untrusted_text.removesuffix(b"\n").split(b"\n") if untrusted_text else ():
        if len(untrusted_line) > MAX_LINE:
            raise QuestionError(f"a line of more than {MAX_LINE} bytes")
        if not untrusted_line.isascii():
            raise QuestionError("a byte outside ASCII")
        key, equals, value = untrusted_line.decode("ascii").partition("=")
        if not equals:
            raise QuestionError(f"{quoted(key)}: a line without '='")
        yield key, value


class EvaluationReader:
    """``policy.EvalSimple`` and ``policy.EvalGUI``: a header as qrexec gives it, source, NUL, target,
    and the end of what the caller sends. Before that the target may go on, and a question cut short would be
    another question; so a caller that keeps its input open has no answer.

    Args:
        service: the name that this socket is called by.
        of_screen: whether it answers only about qubes whose screen the calling qube is.
    """

    ending = b"\n"

    exact = True

    __slots__ = ("_of_screen", "_service", "_untrusted")

    def __init__(self, service: str, of_screen: bool) -> None:
        self._untrusted = bytearray()
        self._service = service.encode("ascii")
        self._of_screen = of_screen

    def feed(self, untrusted_data: bytes | memoryview) -> bool:
        untrusted = self._untrusted
        untrusted += untrusted_data
        header = untrusted.find(b"\0", 0, MAX_LINE + 1)
        if len(untrusted) > MAX_LINE if header < 0 else len(untrusted) - header - 1 >= _MAX_ASKED:
            raise QuestionError("more bytes than an evaluation has")
        return False

    def question(self) -> Question:
        untrusted_header, nul, untrusted_asked = bytes(self._untrusted).partition(b"\0")
        if not nul or not untrusted_header.isascii():
            raise QuestionError("no ASCII header that ends with NUL")
        untrusted_called, _, untrusted_rest = untrusted_header.partition(b" ")
        remote = untrusted_rest.split(b" ")[0].decode("ascii")
        called, _, untrusted_service = untrusted_called.partition(b"+")
        if called != self._service:
            raise QuestionError(f"called as {quoted(called.decode('ascii'))}")
        if not untrusted_service or untrusted_service.startswith(b"+"):
            raise QuestionError("no service is asked about")
        if not remote:
            raise QuestionError("the header names no caller")
        untrusted_source, nul, untrusted_target = untrusted_asked.partition(b"\0")
        if not nul or not _ASKED_SOURCE.fullmatch(untrusted_source):
            raise QuestionError(f"not the name of a source: {quoted(repr(untrusted_source))}")
        if not _ASKED_TARGET.fullmatch(untrusted_target):
            raise QuestionError(f"not the name of a target: {quoted(repr(untrusted_target))}")
        request = Request.of(
            untrusted_service.decode("ascii"),
            untrusted_source.decode("ascii"),
            untrusted_target.decode("ascii"),
        )
        return Question(request, True, True, remote if self._of_screen else None)
