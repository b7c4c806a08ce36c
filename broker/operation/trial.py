"""``qubesd --check FILE``: what would become of a store, said to a person or a program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from broker.operation.pools import unusable
from broker.saying import plain
from qubesd.disk import reason
from qubesd.errors import StoreError
from qubesd.store.check import Change, Outcome, check

TAKEN, REFUSED, UNREADABLE = 0, 1, 2
"""Exit statuses."""

_NEXT = {
    REFUSED: "mend what is said in a copy of the file, and try that; or restore the file from a backup",
    UNREADABLE: "name a file that this user may read, or run this as root",
}
_MOST = 50
"""Lines that are shown of one kind; a program gets all."""

_LONGEST = 200


def try_store(file: Path, as_json: bool) -> int:
    """Print what would become of this file; the exit status. Nothing is written, and nothing is locked."""
    try:
        outcome: Outcome | str = check(file.read_bytes(), str(file))
        status = TAKEN
    except OSError as error:
        outcome, status = f"{file}: cannot be read: {reason(error)}", UNREADABLE
    except StoreError as error:
        outcome, status = str(error), REFUSED
    if as_json:
        print(json.dumps({"file": str(file), **_document(outcome)}))
    elif isinstance(outcome, str):
        print(plain(outcome))
        print(f"do: {_NEXT[status]}")
    else:
        print("\n".join(_report(file, outcome)))
    return status


def _document(outcome: Outcome | str) -> dict[str, Any]:
    if isinstance(outcome, str):
        return {"taken": False, "error": outcome}
    taken = {"taken": True, "error": None, "qubes": outcome.qubes, "unusable": list(unusable(outcome.pools))}
    return {**taken, **asdict(outcome)}


def _report(file: Path, outcome: Outcome) -> Iterator[str]:
    classes = ", ".join(f"{count} {klass}" for klass, count in sorted(outcome.classes.items()))
    yield f"{file}: can be taken over, with {classes}"
    yield from _group("not understood, and kept as it is:", outcome.kept)
    yield from _group("odd:", outcome.odd)
    yield from _group("kept, and of no use on this host:", unusable(outcome.pools))
    changes = [_change(change) for change in outcome.changes]
    if outcome.comments:
        changes.append(f"comments and instructions go: {outcome.comments}")
    yield from _group("changes when it is written for the first time:", changes)


def _group(title: str, lines: Iterable[str]) -> Iterator[str]:
    shown = list(lines)
    if shown:
        yield title
        yield from (f"  {_cut(line)}" for line in shown[:_MOST])
        if len(shown) > _MOST:
            yield f"  and {len(shown) - _MOST} more, which --json shows"


def _change(change: Change) -> str:
    if change.before is None:
        return f"{change.place}: comes: {change.after!r}"
    if change.after is None:
        return f"{change.place}: goes: {change.before!r}"
    return f"{change.place}: {change.before!r} becomes {change.after!r}"


def _cut(text: str) -> str:
    """On one line of bounded length."""
    shown = plain(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
