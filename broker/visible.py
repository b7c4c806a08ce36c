"""What of an answer its caller may see (``design/visibility.md``).

A row is shown exactly when the same caller is allowed the read that guards it, judged on the ground of the
call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from broker.judge import Ground
from policy_engine import Allow, Ask, PolicyError
from qubesd.api.method import EventRows, Guard, NameRows, QubeRows, Unguarded

_FEW = 4
"""Up to so many rows, judging each is less work than finding all qubes that the caller may read."""


def applies(guard: Guard, strict: bool) -> bool:
    """Whether rows are taken out of the answer: stock does so for a few calls only."""
    return not isinstance(guard, Unguarded) and (strict or guard.always)


def shown(rows: Mapping[str, str], guard: Guard, ground: Ground, target: str) -> Iterable[str]:
    """The texts of the rows that the caller may see, in order; ``target`` is the qube that was called."""
    match guard:
        case QubeRows(read):
            if len(rows) <= _FEW:
                return [row for name, row in rows.items() if ground.allows(read, "", name)]
            return [rows[name] for name in ground.allowed_on(read) if name in rows]
        case NameRows(read):
            return [row for name, row in rows.items() if ground.allows(read, name, target)]
        case EventRows() | Unguarded():
            return rows.values()


def hidden(ground: Ground, name: str) -> bool:
    """Whether no rule allows or asks the caller any call on this qube, so that for the caller it is not
    there.

    It tries the calls that the rules themselves name, which are all that can make a difference, and one that
    none of them names.
    """
    if isinstance(ground.policy, PolicyError):
        return True
    calls = {
        (rule.service.replace("*", _UNNAMED), rule.argument.replace("*", _UNNAMED)[1:])
        for rule in ground.policy.rules
        if isinstance(rule.action, Allow | Ask)
    }
    return not any(ground.reaches(service, argument, name) for service, argument in calls)


_UNNAMED = "//"
"""No rule can name this, neither as a service nor as an argument."""
