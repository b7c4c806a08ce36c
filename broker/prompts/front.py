"""What asks a person: a terminal, or windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from broker.prompts.messages import Question
from broker.prompts.notes import Told

PAUSE = 1.0
"""Seconds for which a question has to be in front of the person, and no key pressed, before it can be
answered: what was typed or clicked before was meant for something else."""

Answer = Callable[[str | None], None]
"""Takes one of the question's targets, or ``None`` to deny."""


class Front(Protocol):
    """Shows one question at a time. Every call comes from the loop that the agent runs on."""

    def show(self, question: Question, deadline: float, answer: Answer) -> None:
        """Put a question; there is none in front of the person.

        Args:
            deadline: on the monotonic clock, when the question will be withdrawn.
            answer: to be called on that loop, and at most once; what comes after ``withdraw`` is not heard.
        """

    def withdraw(self, reason: str) -> None:
        """The question that was put last needs no answer any more."""

    def tell(self, told: Told) -> None:
        """Show a note; there is no question in front of the person."""
