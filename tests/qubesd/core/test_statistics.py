"""Rounds of statistics: one for all who watch, none where nobody does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from qubesd.core.statistics import QubeStatistics, usage
from qubesd.virt.hypervisor import Figures
from tests.qubesd.house import House, visit

LIMIT = 30.0


async def next_of(house: House, name: str) -> QubeStatistics:
    """The next statistics of this qube that anybody is told."""
    found: asyncio.Future[QubeStatistics] = asyncio.get_running_loop().create_future()

    def take(event: QubeStatistics) -> None:
        if event.subject == name and not found.done():
            found.set_result(event)

    unsubscribe = house.core.bus.subscribe(QubeStatistics, take)
    try:
        return await asyncio.wait_for(found, LIMIT)
    finally:
        unsubscribe()


def test_all_watchers_have_the_same_rounds(tmp_path: Path) -> None:
    async def watch(house: House) -> None:
        await house.do("admin.vm.Start", "work")
        house.told.clear()
        house.core.statistics.watch()
        house.core.statistics.watch()
        first = await next_of(house, "work")
        assert (first.cpu_usage, first.vcpus, first.memory > 0) == (0, 2, True)
        assert sorted(subject for subject, _, _ in house.told) == ["dom0", "work"]
        assert {event.subject for event in house.core.statistics.last} == {"dom0", "work"}
        house.core.statistics.unwatch()
        await house.do("admin.property.Set", "dom0", "stats_interval", "1")
        assert (await next_of(house, "work")).cpu_time > first.cpu_time
        house.core.statistics.unwatch()
        assert house.core.statistics.last == ()

    visit(tmp_path, watch)


def test_a_qube_that_stopped_is_in_no_later_round(tmp_path: Path) -> None:
    async def watch(house: House) -> None:
        await house.do("admin.property.Set", "dom0", "stats_interval", "1")
        await house.do("admin.vm.Start", "work")
        house.core.statistics.watch()
        await next_of(house, "work")
        await house.do("admin.vm.Kill", "work")
        house.told.clear()
        await next_of(house, "dom0")
        assert "work" not in {subject for subject, name, _ in house.told if name == "vm-stats"}
        house.core.statistics.unwatch()

    visit(tmp_path, watch)


BEFORE = Figures(cpu_time=1_000_000_000, vcpus=2)


@pytest.mark.parametrize(
    ("before", "now", "percent"),
    [
        pytest.param(None, BEFORE, 0, id="first"),
        pytest.param(BEFORE, Figures(cpu_time=3_000_000_000, vcpus=2), 50, id="one-of-two-processors"),
        pytest.param(BEFORE, Figures(cpu_time=5_000_000_000, vcpus=2), 100, id="all-of-them"),
        pytest.param(BEFORE, BEFORE, 0, id="idle"),
        pytest.param(BEFORE, Figures(cpu_time=5, vcpus=2), 0, id="started-anew"),
        pytest.param(BEFORE, Figures(cpu_time=5_000_000_000), 0, id="no-processors"),
    ],
)
def test_usage_is_in_percent_of_all_processors(before: Figures | None, now: Figures, percent: int) -> None:
    assert usage(before, now, seconds=2.0) == percent
