"""The law of the kept world: whatever happened to the qubes since, it is as if it were made anew."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.deciding.state import StateError
from broker.deciding.stock_state import FEW, StockState
from policy_engine import World, WorldError
from tests.broker.alone_rig import DOM0, StockQubesd, lay_out, qubesd_at, uuid

Domains = dict[str, dict[str, Any]]

NAMES = [f"qube-{number}" for number in range(6)]
FACTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["AppVM", "RemoteVM"]),
        "tags": st.lists(st.sampled_from(["red", "blue"]), unique=True),
        # Few enough for two qubes to have the same one, which is an error, or to change places.
        "uuid": st.integers(1, 7).map(uuid),
        "power_state": st.sampled_from(["Running", "Halted"]),
        "internal": st.sampled_from([None, True, "1"]),
    },
    optional={"template_for_dispvms": st.sampled_from([False, True, 0, 1]), "guivm": st.just("dom0")},
)
SYSTEMS = st.dictionaries(st.sampled_from(NAMES), FACTS)


def anew(domains: Domains) -> World | None:
    try:
        return World.from_system_info({"domains": domains})
    except WorldError:
        return None


async def told(root: Path, history: list[Domains]) -> list[World | None]:
    lay_out(root)
    qubesd, worlds = StockQubesd(), list[World | None]()
    async with qubesd_at(root, qubesd):
        state = StockState(root / "run/qubesd.internal.sock")
        for domains in history:
            qubesd.domains = domains
            try:
                worlds.append(await state.world())
            except StateError:
                worlds.append(None)
    return worlds


@settings(max_examples=60, deadline=None)
@given(st.lists(SYSTEMS, min_size=2, max_size=6))
def test_it_is_the_world_that_qubesd_tells_of(history: list[Domains]) -> None:
    described = [{"dom0": DOM0, **domains} for domains in history]
    with TemporaryDirectory() as root:
        assert asyncio.run(told(Path(root), described)) == [anew(domains) for domains in described]


def test_it_is_so_for_more_changes_than_are_made_one_by_one(tmp_path: Path) -> None:
    def system(number: int) -> Domains:
        tags = [f"tag-{number}"]
        return {f"qube-{n}": {"type": "AppVM", "tags": tags, "uuid": uuid(n)} for n in range(1, number)}

    history = [system(number) for number in (3 * FEW, FEW + 2, FEW, 2, 3 * FEW)]
    assert asyncio.run(told(tmp_path, history)) == [anew(domains) for domains in history]
