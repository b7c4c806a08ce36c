"""What the author of a refused edit is told: files by their names, and no more than is the author's."""

from __future__ import annotations

from broker.editing.entry import Author
from policy_engine import Faults, PolicyError
from qubesd.errors import PolicySyntaxError
from qubesd.model.state import DOM0

MAX_TOLD = 20
"""Errors that one refusal tells of."""


def refusal(faults: Faults, author: Author, directory: str) -> PolicySyntaxError:
    """What keeps a change from being made, as far as its author may know of it: all of it, where that is dom0
    or the change is not of framed files alone."""
    hidden = faults.framed and author.qube != DOM0
    errors = faults.own if hidden else (*faults.own, *faults.elsewhere)
    lines = [told(error, directory) for error in errors[:MAX_TOLD]]
    if len(errors) > MAX_TOLD:
        lines.append(f"and {len(errors) - MAX_TOLD} more")
    if hidden and faults.elsewhere:
        lines.append("the rest of the policy needs this file as it is")
    return PolicySyntaxError("\n".join(lines))


def told(error: PolicyError, directory: str) -> str:
    """An error, its file below the policy directory told by its name there."""
    file = relative(error.file, directory)
    return str(PolicyError(error.kind, error.message, file=file, line=error.line, column=error.column))


def relative(path: str, directory: str) -> str:
    return path.removeprefix(f"{directory}/")
