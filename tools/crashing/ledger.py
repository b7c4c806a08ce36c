"""What a system must hold, as one who only sees the answers to its calls can know it.

A change that was acknowledged must be there; one that was refused must not; one that was never answered may
be there or not, and is one or the other for good from the next look at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from broker.client import CallError

Thing = tuple[str, ...]
"""What can be written: its kind, the qube or pool that it is of, and a detail, such as a property's name."""

Value = str | None

ABSENT = None

QUBE = "qube"
THERE = "there"

_NOWHERE: frozenset[Value] = frozenset({ABSENT})


class Ledger:
    """The values that each thing may have. A qube that is not in it was removed, or made by nobody; of other
    things nothing is known before they are observed."""

    def __init__(self) -> None:
        self._may: dict[Thing, frozenset[Value]] = {}

    @contextmanager
    def writing(self, changes: Mapping[Thing, Value]) -> Iterator[None]:
        """Around the call that makes these changes. A call that breaks off leaves both values possible."""
        before = {thing: self._may.get(thing, _NOWHERE) for thing in changes}
        for thing, value in changes.items():
            self._put(thing, before[thing] | {value})
        try:
            yield
        except CallError:
            for thing, values in before.items():
                self._put(thing, values)
            raise
        for thing, value in changes.items():
            self._put(thing, frozenset({value}))

    def observe(self, thing: Thing, value: Value) -> bool:
        """Note the value that a thing was seen to have; false where it may not have that."""
        allowed = thing not in self._may or value in self._may[thing]
        self._put(thing, frozenset({value}))
        return allowed

    def knows(self, thing: Thing) -> bool:
        return thing in self._may

    def may(self, thing: Thing) -> frozenset[Value]:
        """The values that it may have; none where nothing is known of it."""
        return self._may.get(thing, frozenset())

    def things(self) -> list[Thing]:
        return list(self._may)

    def qubes(self) -> list[str]:
        """Those that must be there."""
        return sorted(
            thing[1] for thing, values in self._may.items() if thing[0] == QUBE and values == {THERE}
        )

    def _put(self, thing: Thing, values: frozenset[Value]) -> None:
        self._may[thing] = values
        if thing[0] == QUBE and values == _NOWHERE:
            # What was of a qube that is gone says nothing of a later one of that name.
            for of_it in [of_it for of_it in self._may if of_it[1] == thing[1]]:
                del self._may[of_it]
