"""Questions on a terminal."""

from __future__ import annotations

import asyncio
import os
import select
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from broker.colour import Colours
from broker.prompts.front import Answer
from broker.prompts.keys import GIVE_UP, Keys, Said
from broker.prompts.messages import Question
from broker.prompts.notes import Told
from broker.prompts.sheet import note_line, prompt, question_lines

_TICK = 1.0
"""Seconds between two looks at the clock of the prompt."""

_MOST_KEYS = 1_024
_MOST_HELD = 16


@dataclass
class _Asked:
    """The question that is on the terminal; ``width`` is that of the prompt that stands there."""

    question: Question
    deadline: float
    answer: Answer
    keys: Keys
    tick: asyncio.Handle
    width: int = 0


class Terminal:
    """A front on a terminal.

    Args:
        keyboard: the descriptor that is typed on, as ``unechoed`` has it.
        screen: what is written on.
        end: called when the person wants no more questions, or the terminal is gone.
    """

    def __init__(self, keyboard: int, screen: TextIO, end: Callable[[], None]) -> None:
        self._keyboard = keyboard
        self._screen = screen
        self._end = end
        self._colours = Colours.of(screen)
        self._loop = asyncio.get_running_loop()
        self._asked: _Asked | None = None
        self._held: list[str] = []
        self._loop.add_reader(keyboard, self._typed)

    def close(self) -> None:
        """Read the keyboard no more."""
        self._loop.remove_reader(self._keyboard)

    def show(self, question: Question, deadline: float, answer: Answer) -> None:
        columns, rows = self._size()
        self._write("".join(f"{line}\n" for line in question_lines(question, columns, rows, self._colours)))
        default = question.default_target
        keys = Keys(
            len(question.targets),
            None if default is None else question.targets.index(default) + 1,
            self._loop.time(),
        )
        self._asked = _Asked(question, deadline, answer, keys, self._loop.call_soon(self._tick))

    def withdraw(self, reason: str) -> None:
        self._conclude(self._colours.bad(f"Denied: {reason}."))

    def tell(self, told: Told) -> None:
        self.say(note_line(told, self._colours))

    def say(self, line: str) -> None:
        """Write a line. While a question is there it waits, and is dropped where many wait."""
        if self._asked is None:
            self._write(f"{line}\n")
        elif len(self._held) < _MOST_HELD:
            self._held.append(line)

    def _tick(self) -> None:
        """Show the time that is left, and let keys count when it is time for that: not those that were
        pressed before."""
        asked = self._asked
        assert asked is not None
        now = self._loop.time()
        if not asked.keys.awake and now >= asked.keys.wakes:
            termios.tcflush(self._keyboard, termios.TCIFLUSH)
            asked.keys.awake = True
        self._draw(asked)
        later = now + _TICK
        asked.tick = self._loop.call_at(later if asked.keys.awake else asked.keys.wakes, self._tick)

    def _draw(self, asked: _Asked) -> None:
        """Write the prompt over the one before, in one line whatever happens."""
        text = prompt(asked.keys, asked.deadline - self._loop.time())[: self._size()[0] - 1]
        self._write(f"\r{text.ljust(asked.width)}\r{text}")
        asked.width = len(text)

    def _typed(self) -> None:
        if not select.select([self._keyboard], [], [], 0)[0]:
            # Flushed meanwhile. A descriptor that does not block would be one for everybody who has it.
            return
        try:
            untrusted_keys = os.read(self._keyboard, _MOST_KEYS)
        except OSError:
            untrusted_keys = b""
        if not untrusted_keys:
            self.close()
            self._settle(None)
            self._end()
        elif self._asked is not None:
            self._press(self._asked, untrusted_keys)
        elif not GIVE_UP.isdisjoint(untrusted_keys):
            self._end()

    def _press(self, asked: _Asked, untrusted_keys: bytes) -> None:
        keys = asked.keys
        confirming = keys.confirming
        said = keys.press(untrusted_keys, self._loop.time())
        if said is Said.ALLOW:
            self._settle(asked.question.targets[keys.chosen - 1])
        elif said is Said.DENY:
            self._settle(None)
        else:
            if said is Said.MISTAKEN:
                self._aside(asked, "That is none of the answers.")
            elif keys.confirming and not confirming:
                termios.tcflush(self._keyboard, termios.TCIFLUSH)
                self._aside(asked, f"The default is {asked.question.default_target}.")
            self._draw(asked)

    def _aside(self, asked: _Asked, text: str) -> None:
        self._write(f"\n{text}\n")
        asked.width = 0

    def _settle(self, target: str | None) -> None:
        """Answer the question; nothing where there is none."""
        asked = self._asked
        if asked is None:
            return
        denied = self._colours.bad("Denied.")
        self._conclude(denied if target is None else self._colours.good(f"Allowed to {target}."))
        asked.answer(target)

    def _conclude(self, text: str) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.tick.cancel()
            self._write("\n")
            self.say(text)
        held, self._held = self._held, []
        for line in held:
            self.say(line)

    def _size(self) -> tuple[int, int]:
        """Columns and rows; a terminal that does not know them is taken for an ordinary one."""
        try:
            size = os.get_terminal_size(self._keyboard)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24

    def _write(self, text: str) -> None:
        try:
            self._screen.write(text)
            self._screen.flush()
        except OSError:
            # The terminal is gone.
            self._end()


@contextmanager
def unechoed(keyboard: int) -> Iterator[None]:
    """The keys of a terminal one by one as they are pressed, Ctrl-C and the like among them, and shown by
    nobody. What was typed and not read when this ends is for nobody. Raises ``termios.error`` where it is no
    terminal."""
    before = termios.tcgetattr(keyboard)
    keys = termios.tcgetattr(keyboard)
    # Nor may Ctrl-S stop the clock.
    keys[0] &= ~termios.IXON
    keys[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
    termios.tcsetattr(keyboard, termios.TCSAFLUSH, keys)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSAFLUSH, before)
