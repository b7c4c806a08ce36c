"""Questions and notes on their way to a person: one question at a time, each for so long, and notes in
between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from broker.prompts.front import Front
from broker.prompts.messages import Note, Question
from broker.prompts.notes import Notes
from broker.prompts.queue import Queue

_log = logging.getLogger(__name__)

TIMEOUT = 120.0
"""Seconds for which a question is shown. A policy daemon waits longer for its answer."""

NOTE_INTERVAL = 1.0
"""Seconds between two notes."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A question that waits for its answer or is shown; ``reply`` takes a target, or ``None`` to deny."""

    question: Question
    reply: Callable[[str | None], None]


class Desk:
    """Puts questions to a front, in turn.

    Args:
        timeout: seconds, see ``TIMEOUT``.
        note_interval: seconds, see ``NOTE_INTERVAL``.
    """

    def __init__(
        self,
        front: Front,
        timeout: float = TIMEOUT,
        queue: Queue[Ticket] | None = None,
        note_interval: float = NOTE_INTERVAL,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._front = front
        self._timeout = timeout
        self._queue: Queue[Ticket] = Queue() if queue is None else queue
        self._notes = Notes()
        self._note_interval = note_interval
        self._resting: asyncio.TimerHandle | None = None
        """Runs between two notes."""
        self._shown: Ticket | None = None
        self._expiring: asyncio.TimerHandle | None = None

    def ask(self, ticket: Ticket) -> None:
        """Have this answered in its turn, or at once where too many wait."""
        displaced = self._queue.add(ticket.question.source, ticket)
        if displaced is not None:
            self._settle(displaced, None, "too many questions wait")
        self._go_on()

    def withdraw(self, ticket: Ticket) -> None:
        """Nobody waits for this answer any more; nothing where it was given."""
        if self._shown is ticket:
            self._clear("whoever asked has gone")
            self._go_on()
        else:
            self._queue.remove(ticket.question.source, ticket)

    def tell(self, note: Note) -> None:
        """Show this note when its turn comes and no question is shown."""
        self._notes.add(note)
        self._go_on()

    def close(self) -> None:
        """Take away what is shown, and forget what waits, which gets no answer."""
        while self._queue.take() is not None:
            pass
        if self._shown is not None:
            self._clear("the agent ends")
        if self._resting is not None:
            self._resting.cancel()

    def _go_on(self) -> None:
        if self._shown is not None:
            return
        ticket = self._queue.take()
        if ticket is not None:
            self._show(ticket)
        elif self._resting is None and (told := self._notes.take()) is not None:
            self._resting = self._loop.call_later(self._note_interval, self._rested)
            self._front.tell(told)

    def _show(self, ticket: Ticket) -> None:
        deadline = self._loop.time() + self._timeout
        self._shown = ticket
        self._expiring = self._loop.call_at(deadline, self._expire)
        self._front.show(ticket.question, deadline, partial(self._answered, ticket))

    def _answered(self, ticket: Ticket, target: str | None) -> None:
        """The person's word. What was said to a question that is not there any more is for no other one."""
        if self._shown is not ticket:
            return
        self._unshow()
        self._settle(ticket, target, "by the user")
        self._go_on()

    def _expire(self) -> None:
        assert self._shown is not None
        ticket = self._shown
        self._clear("time is up")
        self._settle(ticket, None, "time is up")
        self._go_on()

    def _rested(self) -> None:
        self._resting = None
        self._go_on()

    def _clear(self, reason: str) -> None:
        self._unshow()
        self._front.withdraw(reason)

    def _unshow(self) -> None:
        assert self._expiring is not None
        self._expiring.cancel()
        self._expiring = self._shown = None

    def _settle(self, ticket: Ticket, target: str | None, why: str) -> None:
        question = ticket.question
        what = "denied" if target is None else f"allowed to {target}"
        _log.info("%s from %s: %s: %s", question.service or "a device", question.source, what, why)
        ticket.reply(target)
