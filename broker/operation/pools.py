"""Which pools of a store this host cannot use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qubesd.errors import QubesError
from qubesd.model.state import PoolConfig
from qubesd.storage import drivers


def unusable(pools: Iterable[PoolConfig]) -> Iterator[str]:
    """Of those whose configuration no driver takes, the name and why. What it stands for is not looked at."""
    for pool in pools:
        try:
            drivers.make(pool)
        except QubesError as error:
            yield str(error)
