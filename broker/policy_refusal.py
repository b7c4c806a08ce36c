"""What the author of a refused edit is told: files by their names, and no more than is the author's."""

from __future__ import annotations

from policy_engine import Faults, PolicyError
from qubesd.errors import PolicySyntaxError

MAX_TOLD = 20
"""Errors that one refusal tells of."""


def refusal(faults: Faults, directory: str) -> PolicySyntaxError:
    """What keeps a change from being made, as far as its author may know of it."""
    lines = [told(error, directory) for error in faults.told[:MAX_TOLD]]
    if len(faults.told) > MAX_TOLD:
        lines.append(f"and {len(faults.told) - MAX_TOLD} more")
    if len(faults.told) < len(faults.own) + len(faults.elsewhere):
        lines.append("the rest of the policy needs this file as it is")
    return PolicySyntaxError("\n".join(lines))


def told(error: PolicyError, directory: str) -> str:
    """An error, its file below the policy directory told by its name there."""
    file = relative(error.file, directory)
    return str(PolicyError(error.kind, error.message, file=file, line=error.line, column=error.column))


def relative(path: str, directory: str) -> str:
    return path.removeprefix(f"{directory}/")
