"""A daemon with one guard switched off, which the first argument names: a flaw to be found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from unittest.mock import patch

import broker.daemon
from broker.dispatch import Dispatcher


def unfiltered(guard: object, strict: bool) -> bool:
    return False


def unread(*event: object) -> bool:
    return True


def all_there(core: object, *call: object) -> object:
    return core


def one_count(dispatcher: Dispatcher, caller: object) -> int:
    counts: dict[str, int] = dispatcher._counts
    counts[""] = counts.get("", 0) + 1
    return counts[""]


FLAWS: Mapping[str, tuple[str, Callable[..., object]]] = {
    "rows": ("broker.dispatch.applies", unfiltered),
    "values-in-events": ("broker.streams._values_readable", unread),
    "named-qubes": ("broker.preparation.as_seen", all_there),
    "counts": ("broker.dispatch.Dispatcher._count", one_count),
}

if __name__ == "__main__":
    place, flaw = FLAWS[sys.argv.pop(1)]
    with patch(place, flaw):
        broker.daemon.main()
