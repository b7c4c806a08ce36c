"""What a question tells besides its choices, as every front shows it."""

from __future__ import annotations

from collections.abc import Iterator

from broker.prompts.messages import Question

HEADING = "Shall this call be made?"


def written_by_others(question: Question) -> Iterator[tuple[str, str]]:
    """Name and untrusted text of each fact that is told, below the source and the service."""
    if question.untrusted_argument != "+":
        yield "argument", question.untrusted_argument
    if question.untrusted_requested_target is not None:
        yield "requested target", question.untrusted_requested_target
    if question.untrusted_value is not None:
        yield "value", question.untrusted_value
