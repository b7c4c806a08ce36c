"""What of an answer its caller may see (``design/visibility.md``).

A row is shown exactly when the same caller is allowed the read that guards it, judged on the ground of the
call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import policy_engine
from broker.judge import Ground
from policy_engine import PolicyError
from qubesd.api.method import (
    Command,
    Counted,
    DeviceRows,
    EventRows,
    Guard,
    HeldAlong,
    NameRows,
    QubeRows,
    Rows,
    Unguarded,
    VolumeRows,
)

_FEW = 4
"""Up to so many rows, judging each is less work than finding all qubes that the caller may read."""


def applies(guard: Guard, strict: bool) -> bool:
    """Whether rows are taken out of the answer: stock does so for a few calls only."""
    return not isinstance(guard, Unguarded) and (strict or guard.always)


def shown(answer: Rows, guard: Guard, ground: Ground, command: Command) -> Iterable[str]:
    """The texts of the rows of the answer to this command that the caller may see, in order."""
    rows = answer.rows
    if not answer.mentions:
        return [rows[key] for key in _visible(rows, guard, ground, command)]
    unseen = {qube for qube in {mention.qube for mention in answer.mentions.values()} if hidden(ground, qube)}
    return [
        mention.without if mention is not None and mention.qube in unseen else rows[key]
        for key in _visible(rows, guard, ground, command)
        for mention in (answer.mentions.get(key),)
    ]


def _visible(keys: Collection[str], guard: Guard, ground: Ground, command: Command) -> Iterable[str]:
    """Those of the keys whose rows the guard lets through."""
    target = command.target.name
    match guard:
        case QubeRows(read):
            if len(keys) <= _FEW:
                return [name for name in keys if ground.allows(read, "", name)]
            return [name for name in ground.allowed_on(read) if name in keys]
        case NameRows(read):
            return [name for name in keys if ground.allows(read, name, target)]
        case VolumeRows(read, by_qube):
            if not ground.allows(read, command.argument, target):
                return []
            return [key for key in keys if _allows_by_qube(ground, by_qube, key)]
        case DeviceRows(read):
            return [key for key in keys if _allows_by_qube(ground, read, key.partition(":")[0])]
        case EventRows() | HeldAlong() | Counted() | Unguarded():
            return keys


def _allows_by_qube(ground: Ground, service: str, key: str) -> bool:
    """Whether the call is allowed with the argument and on the qube of ``QUBE+ARGUMENT``; ``*`` is ``_`` as
    an argument, as devices have it on the wire."""
    qube, _, argument = key.partition("+")
    return ground.allows(service, "_" if argument == "*" else argument, qube)


def hidden(ground: Ground, name: str) -> bool:
    """Whether for the caller the qube is not there."""
    return isinstance(ground.policy, PolicyError) or policy_engine.hidden(
        ground.policy, ground.world, ground.source, name
    )
