"""The order in which questions come to the screen: the sources take turns, and each has little room."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

EACH = 16
"""Questions of one source that wait."""

ALTOGETHER = 256
"""Questions that wait."""

T = TypeVar("T", bound=Hashable)


class Queue(Generic[T]):
    """What waits, by its source.

    A source that asks much delays and displaces nobody but itself: the others' questions come in between, and
    when there is no room left, who has most of it gives up the last that it took.
    """

    def __init__(self, each: int = EACH, altogether: int = ALTOGETHER) -> None:
        self._each = each
        self._altogether = altogether
        self._lines: dict[str, deque[T]] = {}
        """Whose turn is next comes first; a source without a question is not there."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, source: str, item: T) -> T | None:
        """Have this wait too; gives what there is no room for instead, which may be the item itself."""
        line = self._lines.get(source, deque())
        if len(line) >= self._each:
            return item
        displaced = None
        if self._length >= self._altogether:
            longest = max(self._lines.values(), key=len, default=line)
            if len(longest) <= len(line) + 1:
                return item
            # At least one more is left of it, so it keeps its place in the order.
            displaced = longest.pop()
            self._length -= 1
        line.append(item)
        self._lines.setdefault(source, line)
        self._length += 1
        return displaced

    def take(self) -> T | None:
        """The next one, which then waits no more; ``None`` where nobody waits."""
        source = next(iter(self._lines), None)
        if source is None:
            return None
        line = self._lines.pop(source)
        item = line.popleft()
        self._length -= 1
        if line:
            self._lines[source] = line
        return item

    def remove(self, source: str, item: T) -> bool:
        """Have this wait no more; whether it did."""
        line = self._lines.get(source, deque())
        if item not in line:
            return False
        line.remove(item)
        self._length -= 1
        if not line:
            del self._lines[source]
        return True
