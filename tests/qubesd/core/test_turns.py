"""A qube that asks without a pause is answered at a pace, and delays nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from qubesd.core.turns import Turns
from tests.qubesd.house import House, visit


def test_one_at_a_time_and_a_rest_after_each(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        loop = asyncio.get_running_loop()
        turns = Turns(house.core, rest=0.02)
        began: list[tuple[str, float]] = []
        inside: list[str] = []

        async def request(name: str) -> None:
            async with turns.of(house.qube(name)):
                assert name not in inside
                inside.append(name)
                began.append((name, loop.time()))
                await asyncio.sleep(0)
                inside.remove(name)

        await asyncio.gather(*(request(name) for name in ("work", "work", "work", "sys-net")))
        assert [name for name, _ in began] == ["work", "sys-net", "work", "work"]
        times = [time for name, time in began if name == "work"]
        assert all(later - sooner >= 0.019 for sooner, later in pairwise(times))

    visit(tmp_path, guest)


def test_those_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        turns = Turns(house.core, rest=0)
        for number in range(300):
            async with turns.of(replace(house.qube("work"), uuid=f"gone-{number}")):
                pass
        async with turns.of(house.qube("work")):
            assert turns.known <= 2 * len(house.core.system.qubes) + 101

    visit(tmp_path, guest)
