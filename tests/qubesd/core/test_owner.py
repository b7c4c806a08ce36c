"""Whose a qube is: its maker's owner or else its maker, until dom0 says otherwise."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from qubesd.core.budgets import Allowance
from qubesd.core.usage import Use
from qubesd.events import FeatureSet
from qubesd.model.owner import OWNER
from tests.qubesd.core.test_budgets import ALICE, BOB, PRIVATE, limit, make, refused, scene, used
from tests.qubesd.core.test_durability import unwritable
from tests.qubesd.core.test_preloading import ask, queue, take
from tests.qubesd.house import House, visit


@scene
async def test_who_owns_what_is_made(house: House) -> None:
    alice = house.qube(ALICE).uuid
    assert not any(OWNER in qube.features for qube in house.core.system.qubes.values())
    await make(house, "a")
    assert house.qube("a").features[OWNER] == alice
    await make(house, "b", caller="a")
    assert house.qube("b").features[OWNER] == alice
    await house.do("admin.vm.property.Set", "a", "template_for_dispvms", "True")
    for caller, owner in (("dom0", None), ("a", alice), (BOB, house.qube(BOB).uuid)):
        made = await house.call("admin.vm.CreateDisposable", "a", caller=caller)
        assert house.qube(made).features.get(OWNER) == owner
    words = ("admin.vm.Create.DispVM", "dom0", "a", "name=named label=red")
    await house.do(*words, caller=BOB)
    assert house.qube("named").features[OWNER] == house.qube(BOB).uuid


@scene
async def test_a_clone_is_its_makers(house: House) -> None:
    """Stock tools copy what the list has; the owner is none of it, and can be asked for by name."""
    await make(house, "a")
    assert OWNER not in (await house.call("admin.vm.feature.List", "a")).split()
    assert await house.call("admin.vm.feature.Get", "a", OWNER) == house.qube(ALICE).uuid


def test_an_owner_outlives_the_daemon(tmp_path: Path) -> None:
    figures: list[Use] = []

    async def before(house: House) -> None:
        await make(house, "a")
        await house.do("admin.vm.volume.Resize", "a", "private", str(2 * PRIVATE))
        figures.append(used(house))

    async def after(house: House) -> None:
        assert house.qube("a").features[OWNER] == house.qube(ALICE).uuid
        assert [used(house)] == figures == [Use(qubes=1, storage=2 * PRIVATE)]

    visit(tmp_path, before)
    visit(tmp_path, after, furnished=False)


@scene
async def test_dom0_hands_over_and_nobody_else(house: House) -> None:
    await make(house, "a")
    await house.do("admin.vm.Start", "a")
    everything = used(house)
    bob = house.qube(BOB).uuid
    for caller in (ALICE, BOB, "a"):
        for words in (("Set", "a", OWNER, bob), ("Remove", "a", OWNER)):
            service, *rest = words
            answer = await house.call(f"admin.vm.feature.{service}", *rest, caller=caller)
            assert answer == "PermissionDenied"
    limit(house, bob=Allowance(running=0))
    await refused(house, "admin.vm.feature.Set", "a", OWNER, bob)
    limit(house)
    await house.do("admin.vm.feature.Set", "a", OWNER, bob)
    assert (used(house), used(house, BOB)) == (Use(), everything)
    await house.do("admin.vm.feature.Remove", "a", OWNER)
    assert (used(house), used(house, BOB)) == (Use(), Use())


@pytest.mark.parametrize(
    ("target", "value"),
    [
        pytest.param("work", "", id="empty"),
        pytest.param("work", "work", id="name"),
        pytest.param("work", "11111111-2222-3333-4444-55555555555A", id="capital"),
        pytest.param("dom0", "11111111-2222-3333-4444-555555555555", id="dom0"),
    ],
)
def test_no_owner(target: str, value: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        assert await house.call("admin.vm.feature.Set", target, OWNER, value) == "QubesValueError"
        assert OWNER not in house.qube(target).features

    visit(tmp_path, guest)


@scene
async def test_one_made_ahead_is_nobodys_until_it_is_taken(house: House) -> None:
    await ask(house, 2, "1000")
    assert not any(OWNER in house.qube(name).features for name in queue(house))
    limit(house, alice=Allowance(running=1))
    asked = (house.call("admin.vm.CreateDisposable", "web-dvm", caller=ALICE) for _ in range(2))
    answers = await asyncio.gather(*asked)
    (left,) = queue(house)
    assert sorted(answers)[0] == "PermissionDenied"
    assert house.core.running(left).state == "Paused"
    (taken,) = (name for name in answers if name != "PermissionDenied")
    assert house.qube(taken).features[OWNER] == house.qube(ALICE).uuid
    assert used(house) == Use(qubes=1, running=1, memory=400 << 20)
    assert (await take(house, BOB)).name == left
    assert used(house, BOB) == used(house)


@scene
async def test_a_hand_over_that_cannot_be_written_down_is_none(house: House) -> None:
    """Also where somebody saw the figures in between."""
    await make(house, "a")
    seen: list[Use] = []
    house.core.bus.subscribe(FeatureSet, lambda _: seen.append(used(house, BOB)))
    with unwritable(house.core.config.store):
        words = ("admin.vm.feature.Set", "a", OWNER, house.qube(BOB).uuid)
        assert await house.call(*words) == "QubesException"
    assert seen == [Use(qubes=1, storage=PRIVATE)]
    assert (used(house), used(house, BOB)) == (seen[0], Use())
