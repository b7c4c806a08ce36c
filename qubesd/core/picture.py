"""Pictures of the system: something made of each qube, kept, and made anew for those that changed.

A list of a thousand qubes is asked for often and changes rarely, in few places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from qubesd.core.keeper import Keeper
from qubesd.events import QubeChanged, SystemChanged
from qubesd.model.state import Qube

T = TypeVar("T")


class Picture(Generic[T]):
    """What ``draw`` makes of each qube, in the order of every list."""

    def __init__(self, keeper: Keeper, draw: Callable[[Keeper, Qube], T]) -> None:
        self._keeper = keeper
        self._draw = draw
        self._drawn: Mapping[str, T] = {}
        self._stale: set[str] = set()
        self._all_stale = True
        keeper.bus.subscribe(QubeChanged, lambda event: self._stale.add(event.subject))
        keeper.bus.subscribe(SystemChanged, lambda event: self._spoil())

    def _spoil(self) -> None:
        self._all_stale = True

    def all(self) -> Mapping[str, T]:
        """By name; a later change does not show in a mapping that was given out before it."""
        if self._all_stale:
            self._drawn = {
                qube.name: self._draw(self._keeper, qube) for qube in self._keeper.system.in_order()
            }
            self._all_stale = False
            self._stale.clear()
        elif self._stale:
            self._drawn = self._refreshed()
            self._stale.clear()
        return self._drawn

    def _refreshed(self) -> Mapping[str, T]:
        qubes = self._keeper.system.qubes
        drawn = dict(self._drawn)
        came = False
        for name in self._stale:
            qube = qubes.get(name)
            if qube is None:
                drawn.pop(name, None)
            else:
                came = came or name not in drawn
                drawn[name] = self._draw(self._keeper, qube)
        if not came:
            return drawn
        return {qube.name: drawn[qube.name] for qube in self._keeper.system.in_order()}
