"""What a person types as the answer to one question: keys to an answer, no terminal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from broker.prompts.front import PAUSE

LONGEST = 8
"""Characters of an answer; what is typed beyond them is not taken."""

_ENTER = frozenset(b"\r\n")
_ERASE = frozenset(b"\b\x7f")
GIVE_UP = frozenset(b"\x03\x04")
"""Ctrl-C and Ctrl-D."""

_ESCAPE = 0x1B
_DENYING = frozenset({"d", "deny", "n", "no"})
_CONFIRMING = "yes"


class Said(Enum):
    """What there is to be done about what was typed."""

    NOTHING = auto()
    DENY = auto()
    ALLOW = auto()
    MISTAKEN = auto()
    """It is no answer; the question stands."""


@dataclass
class Keys:
    """The keys for one question.

    Nothing counts until ``awake`` is set: it was typed for something else. A choice is made by its number.
    Enter alone stands for the default, which then has to be confirmed with a word, so that no single key,
    leant on or typed ahead, ever allows.

    Attributes:
        choices: how many there are.
        default: the number of one of them, or ``None``.
        quiet_since: on the monotonic clock; the time at which the question was put, at first.
        line: what has been typed of an answer.
        confirming: whether the default was chosen, and has to be confirmed.
        chosen: the number of the choice that ``Said.ALLOW`` is about.
        awake: whether keys count; to be set when it is time.
    """

    choices: int
    default: int | None
    quiet_since: float
    line: str = ""
    confirming: bool = False
    chosen: int = 0
    awake: bool = False

    @property
    def wakes(self) -> float:
        """When keys may count if none is pressed before."""
        return self.quiet_since + PAUSE

    def press(self, untrusted_keys: bytes, now: float) -> Said:
        """Take what was typed. What comes in one piece with what answers, and after it, is dropped."""
        if not self.awake:
            self.quiet_since = now
            return Said.NOTHING
        for key in untrusted_keys:
            if key in GIVE_UP:
                return Said.DENY
            if key in _ENTER:
                return self._entered()
            if key == _ESCAPE:
                # An arrow or the like: the rest of the piece is the rest of its name.
                break
            if key in _ERASE:
                self.line = self.line[:-1]
            elif chr(key).isascii() and chr(key).isalnum() and len(self.line) < LONGEST:
                self.line += chr(key)
        return Said.NOTHING

    def _entered(self) -> Said:
        line, self.line = self.line.lower(), ""
        if self.confirming:
            return Said.ALLOW if line == _CONFIRMING else Said.DENY
        if line in _DENYING:
            return Said.DENY
        if not line and self.default is not None:
            self.confirming, self.chosen = True, self.default
            return Said.NOTHING
        if line.isdecimal() and 1 <= int(line) <= self.choices:
            self.chosen = int(line)
            return Said.ALLOW
        return Said.MISTAKEN
