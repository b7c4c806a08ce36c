"""A mapping of texts that never changes, and of which another one with a few changes is soon made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")

_PARTS = 251
"""A prime: what its remainder tells of a hash says nothing of the place that a dictionary has for it."""


class Spread(Generic[V]):
    """The mapping, spread over dictionaries of which every version shares those that did not change."""

    __slots__ = ("_parts",)

    def __init__(self, items: Mapping[str, V]) -> None:
        parts: list[dict[str, V]] = [{} for _ in range(_PARTS)]
        for key, value in items.items():
            parts[hash(key) % _PARTS][key] = value
        self._parts = parts

    def get(self, key: str) -> V | None:
        return self._parts[hash(key) % _PARTS].get(key)

    def but(self, changes: Mapping[str, V | None]) -> Spread[V]:
        """This mapping with these values; ``None`` takes a key out."""
        parts = self._parts.copy()
        for key, value in changes.items():
            number = hash(key) % _PARTS
            part = parts[number] = parts[number].copy()
            if value is None:
                part.pop(key, None)
            else:
                part[key] = value
        derived: Spread[V] = Spread.__new__(Spread)
        derived._parts = parts
        return derived

    def items(self) -> Iterator[tuple[str, V]]:
        """In no order."""
        for part in self._parts:
            yield from part.items()

    def __eq__(self, other: object) -> bool:
        return self._parts == other._parts if isinstance(other, Spread) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # compared by content


class Found(dict[str, V]):
    """What was found in a ``Spread`` is found here by one look-up from then on; ``None`` is not remembered.

    Look-ups are those by ``[]``, which never fail.
    """

    __slots__ = ("_get",)

    def __init__(self, spread: Spread[V]) -> None:
        self._get = spread.get

    def __missing__(self, key: str) -> V | None:
        value = self._get(key)
        if value is not None:
            self[key] = value
        return value
