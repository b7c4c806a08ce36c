"""Questions to whoever sits before the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from broker.authoring.preview import Preview

QUIT = "q"
"""The answer of nobody, too."""

_SHORT, _WHOLE = "y", "yes"


def choose(answers: Mapping[str, str]) -> str:
    """One of the words, which are told with what they do; ``QUIT`` where nobody answers any more."""
    told = ", ".join(f"{word}: {what}" for word, what in answers.items())
    while True:
        try:
            answer = input(f"{told}? ").strip().lower()
        except EOFError:
            print()
            return QUIT
        if answer == _WHOLE and _SHORT in answers:
            answer = _SHORT
        if answer in answers:
            return answer


def show(preview: Preview) -> None:
    """What a change does, for a person to judge."""
    for line in (*preview.differences, "", *preview.meaning):
        print(line)
    for warning in preview.warnings:
        print(f"WARNING: {warning}")
    if preview.warnings:
        print("Dom0 itself is never judged: qubes-policy rollback takes it back there.")


def consent(preview: Preview) -> str:
    """The word that puts a change into force: one that is not typed by mistake where there is a warning."""
    return _WHOLE if preview.warnings else _SHORT
