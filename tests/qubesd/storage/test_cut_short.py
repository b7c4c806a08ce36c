"""A tool of LVM or ZFS that fails, and a daemon that ends between two of them, at every place there is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from qubesd.errors import StorageError
from qubesd.storage.pool import Pool
from tests.qubesd.storage.rigs import SIZE, Rig, content, cycle, replace, write
from tests.qubesd.storage.tools import EXTENT, Tool

OLD, NEW, OTHER = b"old", b"new", b"other"


def _begin(rig: Rig) -> None:
    rig.pool.start(rig.origin("work"))
    write(rig.pool, rig.origin("work"), NEW)


def _nothing(rig: Rig) -> None:
    pass


def _written(pool: Pool, rig: Rig) -> None:
    replace(pool, rig.origin("work"), NEW, SIZE)


VERBS: dict[str, tuple[Callable[[Rig], None], Callable[[Pool, Rig], object], bytes]] = {
    "start": (_nothing, lambda pool, rig: pool.start(rig.origin("work")), OLD),
    "stop": (_begin, lambda pool, rig: pool.stop(rig.origin("work")), NEW),
    "import": (_nothing, _written, NEW),
    "clone": (
        _nothing,
        lambda pool, rig: pool.clone(rig.origin("work"), pool, rig.origin("mail")),
        OTHER,
    ),
    "snapshot": (_nothing, lambda pool, rig: pool.snapshot(rig.origin("work")), OLD),
    "revert": (
        _nothing,
        lambda pool, rig: pool.revert(rig.origin("work"), pool.revisions(rig.origin("work"))[0].id),
        b"",
    ),
    "resize": (_nothing, lambda pool, rig: pool.resize(rig.origin("work"), SIZE + EXTENT), OLD),
}
"""What is done first; the verb; and what is committed after it."""


def _rig(driver: str, place: Path) -> tuple[Rig, Tool]:
    rig = Rig(driver, place)
    assert rig.tools is not None
    for qube, data in (("work", OLD), ("mail", OTHER)):
        rig.pool.create(rig.origin(qube))
        cycle(rig.pool, rig.origin(qube), data)
    return rig, rig.tools


class Failure:
    """Has the tool's call at this place fail, or all from there on, as if the daemon had ended there."""

    def __init__(self, tool: Tool, place: int, onwards: bool) -> None:
        self._left = place
        self._onwards = onwards
        self.met = False
        tool.failing = self

    def __call__(self, call: tuple[str, ...]) -> bool:
        self._left -= 1
        self.met = self._left < 0
        return self._left == -1 or (self._onwards and self.met)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("driver", ["lvm_thin", "zfs"])
@pytest.mark.parametrize("onwards", [False, True], ids=["one-failure", "the-end"])
def test_what_was_committed_is_the_state_before_or_after(
    driver: str, verb: str, onwards: bool, tmp_path: Path
) -> None:
    before, act, after = VERBS[verb]
    for place in count():
        rig, tool = _rig(driver, tmp_path / str(place))
        before(rig)
        failure = Failure(tool, place, onwards)
        told = False
        try:
            act(rig.pool, rig)
        except StorageError:
            told = True
        tool.failing = lambda _: False
        volume = rig.origin("work")
        if onwards:
            rig.again().stop(volume)  # as the daemon does at its start with every qube that does not run
        found = content(rig.pool, volume)
        assert found in (OLD, after), place
        if not told:
            assert found == after, place
        rig.pool.stop(volume)
        assert content(rig.pool, volume) == (NEW if verb == "stop" else found), place
        cycle(rig.pool, volume, b"goes on")
        assert content(rig.pool, volume).startswith(b"goes on"), place
        rig.pool.remove(volume)
        rig.pool.create(volume)
        assert content(rig.pool, volume) == b"", place
        if not failure.met:
            return
