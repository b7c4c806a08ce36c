"""Limits hold exactly, whoever acts and whatever is under way; a refusal leaves everything as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qubesd.core.budgets import UNLIMITED, Allowance
from qubesd.core.power_events import DomainPreStart, DomainVerifyFiles
from qubesd.core.usage import Use
from qubesd.errors import OverLimit
from qubesd.model.names import MAX_DISPID
from qubesd.model.owner import OWNER
from qubesd.model.state import Qube
from tests.qubesd.core.test_durability import unwritable
from tests.qubesd.house import House, visit

Guest = Callable[[House], Awaitable[None]]

MIB, GIB = 1 << 20, 1 << 30
PRIVATE = 2 * GIB
"""The size of a new qube's private volume."""

ALICE, BOB = "work", "sys-net"
"""Two qubes of dom0's that make others."""


def limit(house: House, **allowances: Allowance) -> None:
    """What Alice and Bob may have, others everything."""
    by_name = {ALICE: allowances.get("alice", UNLIMITED), BOB: allowances.get("bob", UNLIMITED)}

    def allowance_of(owner: Qube | None) -> Allowance:
        return by_name.get(owner.name, UNLIMITED) if owner is not None else UNLIMITED

    house.core.budgets.allowance_of = allowance_of


def used(house: House, owner: str = ALICE) -> Use:
    return house.core.budgets.used(house.qube(owner).uuid)


async def make(house: House, name: str, caller: str = ALICE) -> Qube:
    """A qube that is the caller's, of 400 MiB and with no netvm."""
    await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", f"name={name} label=red", caller=caller)
    await house.do("admin.vm.property.Set", name, "netvm", "")
    return house.qube(name)


async def refused(house: House, *words: str, **by_name: str) -> OverLimit:
    """Make a call that a limit refuses, and see that nothing came of it."""
    before, files = house.core.system, sorted(house.core.config.qubes_dir.rglob("*"))
    house.told.clear()
    with pytest.raises(OverLimit) as caught:
        await house.answer(*words, **by_name)
    assert house.core.system is before
    assert sorted(house.core.config.qubes_dir.rglob("*")) == files
    assert house.told == []
    return caught.value


def scene(guest: Guest) -> Callable[[Path], None]:
    """A test in a furnished house."""

    def test(tmp_path: Path) -> None:
        visit(tmp_path, guest)

    return test


@scene
async def test_a_hundred_creates_at_once_against_ten_give_ten(house: House) -> None:
    limit(house, alice=Allowance(qubes=10))
    creates = (
        house.call("admin.vm.Create.AppVM", "dom0", "debian-13", f"name=a{number} label=red", caller=ALICE)
        for number in range(100)
    )
    answers = await asyncio.gather(*creates)
    assert sorted(answers) == [""] * 10 + ["PermissionDenied"] * 90
    made = {name for name in house.core.system.qubes if name.startswith("a")}
    assert len(made) == 10
    assert {path.name for path in (house.core.config.qubes_dir / "appvms").glob("a*")} == made
    assert used(house) == Use(qubes=10, storage=10 * PRIVATE)
    error = await refused(
        house, "admin.vm.Create.AppVM", "dom0", "debian-13", "name=b label=red", caller=ALICE
    )
    assert (error.owner, error.what, error.limit) == (house.qube(ALICE).uuid, "qubes", 10)
    assert error.detail == "qubes: 10 of 10"
    assert "10" not in str(error)
    await house.do("admin.vm.Remove", made.pop())
    await make(house, "b")


@scene
async def test_disposables_at_once(house: House) -> None:
    """What an owned qube makes counts for the same owner, and a refusal takes no number away."""
    await make(house, "a1")
    limit(house, alice=Allowance(qubes=4))
    asked = (house.call("admin.vm.CreateDisposable", "web-dvm", caller="a1") for _ in range(20))
    answers = await asyncio.gather(*asked)
    made = [answer for answer in answers if answer != "PermissionDenied"]
    assert len(made) == 3
    assert {house.qube(name).features[OWNER] for name in made} == {house.qube(ALICE).uuid}
    assert used(house).qubes == 4
    assert used(house, "a1") == Use()
    await refused(house, "admin.vm.CreateDisposable", "web-dvm", caller="a1")


@scene
async def test_what_is_refused_takes_no_number_away(house: House) -> None:
    """Numbers rest for a week after they were drawn; a caller at its limit must not bring all to rest."""
    limit(house, alice=Allowance(qubes=0))
    for _ in range(MAX_DISPID + 2):
        with pytest.raises(OverLimit):
            await house.core.creation.create_disposable(house.qube(ALICE), house.qube("web-dvm"))
    await house.do("admin.vm.CreateDisposable", "web-dvm")


@scene
async def test_a_qube_counts_before_its_first_file(house: House) -> None:
    limit(house, alice=Allowance(qubes=1))
    words = ("admin.vm.Create.AppVM", "dom0", "debian-13")
    first = asyncio.create_task(house.call(*words, "name=a label=red", caller=ALICE))
    while not house.core.storage.claimed():
        await asyncio.sleep(0)
    assert "a" not in house.core.system.qubes
    assert used(house) == Use(qubes=1, storage=PRIVATE)
    assert await house.call(*words, "name=b label=red", caller=ALICE) == "PermissionDenied"
    assert not (house.core.config.qubes_dir / "appvms/b").exists()
    assert await first == ""


@scene
async def test_storage_of_new_qubes(house: House) -> None:
    limit(house, alice=Allowance(storage=3 * PRIVATE - 1))
    creates = (
        house.call("admin.vm.Create.AppVM", "dom0", "debian-13", f"name=a{number} label=red", caller=ALICE)
        for number in range(5)
    )
    assert (await asyncio.gather(*creates)).count("") == 2
    error = await refused(house, "admin.vm.Create.TemplateVM", payload="name=a9 label=red", caller=ALICE)
    assert error.detail == f"storage: {2 * PRIVATE} of {3 * PRIVATE - 1} bytes, {12 * GIB} more wanted"


@scene
async def test_starts_at_once_whoever_asks(house: House) -> None:
    for number in range(5):
        await make(house, f"a{number}")
    limit(house, alice=Allowance(running=2))
    starts = (house.call("admin.vm.Start", f"a{number}", caller=BOB) for number in range(5))
    assert sorted(await asyncio.gather(*starts)) == ["", "", *["PermissionDenied"] * 3]
    running = [f"a{number}" for number in range(5) if house.core.running(f"a{number}").state == "Running"]
    assert len(running) == 2
    assert used(house).running == 2
    halted = next(f"a{number}" for number in range(5) if f"a{number}" not in running)
    assert (await refused(house, "admin.vm.Start", halted)).detail == "running: 2 of 2"
    await house.do("admin.vm.Start", running[0])  # it runs already
    await house.do("admin.vm.Kill", running[0])
    await house.do("admin.vm.Start", halted)


@pytest.mark.parametrize(
    ("memory", "maxmem", "want"),
    [
        pytest.param("4000", "0", 4000, id="maxmem-hides-nothing"),
        pytest.param("400", "3000", 3000, id="maxmem"),
        pytest.param("500", "400", 500, id="maxmem-below"),
    ],
)
def test_memory_is_what_a_qube_may_come_to_have(memory: str, maxmem: str, want: int, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await make(house, "a")
        await house.do("admin.vm.property.Set", "a", "memory", memory)
        await house.do("admin.vm.property.Set", "a", "maxmem", maxmem)
        assert used(house).memory == 0
        limit(house, alice=Allowance(memory=want * MIB - 1))
        assert (await refused(house, "admin.vm.Start", "a")).what == "memory"
        limit(house, alice=Allowance(memory=want * MIB))
        await house.do("admin.vm.Start", "a")
        assert used(house).memory == want * MIB

    visit(tmp_path, guest)


@scene
async def test_memory_of_a_qube_that_runs(house: House) -> None:
    await make(house, "a")
    await house.do("admin.vm.property.Set", "a", "maxmem", "0")
    await house.do("admin.vm.property.Set", "a", "memory", "500")
    await house.do("admin.vm.property.Set", "debian-13", "memory", "900")
    limit(house, alice=Allowance(memory=800 * MIB))
    await house.do("admin.vm.Start", "a")
    assert (await refused(house, "admin.vm.property.Set", "a", "memory", "801")).have == 500 * MIB
    await refused(house, "admin.vm.property.Reset", "a", "memory")
    await house.do("admin.vm.property.Set", "a", "memory", "800")
    assert used(house).memory == 800 * MIB
    await house.do("admin.vm.property.Set", "a", "memory", "100")
    assert used(house).memory == 500 * MIB  # that of its domain
    await house.do("admin.vm.Kill", "a")
    assert used(house).memory == 0
    await house.do("admin.vm.property.Set", "a", "memory", "801")
    await refused(house, "admin.vm.Start", "a")


@scene
async def test_a_template_that_changes_changes_no_domain(house: House) -> None:
    await make(house, "a")
    limit(house, alice=Allowance(memory=400 * MIB))
    await house.do("admin.vm.Start", "a")
    await house.do("admin.vm.property.Set", "debian-13", "memory", "3000")
    await house.do("admin.vm.tag.Set", "a", "team")
    assert used(house).memory == 400 * MIB
    await house.do("admin.vm.Kill", "a")
    await refused(house, "admin.vm.Start", "a")


def raise_memory_during_start(house: House) -> None:
    """Have the template ask for much more as soon as a start has begun."""

    def change(_: DomainVerifyFiles) -> None:
        template = house.qube("debian-13").with_property("memory", 3000)
        house.core.change(house.core.system.with_qube(template), [template.name])

    house.core.bus.subscribe(DomainVerifyFiles, change)


@scene
async def test_more_memory_asked_for_while_a_start_is_under_way(house: House) -> None:
    """It is looked at again when the domain is made, and the start that fails gives back what it held."""
    await make(house, "a")
    limit(house, alice=Allowance(memory=400 * MIB))
    raise_memory_during_start(house)
    assert await house.call("admin.vm.Start", "a") == "PermissionDenied"
    assert house.core.running("a").state == "Halted"
    assert used(house).running == 0


@scene
async def test_a_netvm_that_starts_along_counts_for_its_own_owner(house: House) -> None:
    await make(house, "net", caller=BOB)
    await house.do("admin.vm.property.Set", "net", "provides_network", "True")
    for name in ("a1", "a2"):
        await make(house, name)
        await house.do("admin.vm.property.Set", name, "netvm", "net")
    limit(house, alice=Allowance(running=1), bob=Allowance(running=0))
    assert (await refused(house, "admin.vm.Start", "a1", caller=ALICE)).owner == house.qube(BOB).uuid
    limit(house, alice=Allowance(running=1), bob=Allowance(running=1))
    answers = await asyncio.gather(*(house.call("admin.vm.Start", name) for name in ("a1", "a2")))
    assert sorted(answers) == ["", "PermissionDenied"]
    assert (used(house).running, used(house, BOB).running) == (1, 1)
    assert house.core.running("net").state == "Running"


@scene
async def test_a_netvm_that_is_refused_in_the_middle_is_its_owners_matter(house: House) -> None:
    await make(house, "net", caller=BOB)
    await house.do("admin.vm.property.Set", "net", "provides_network", "True")
    await make(house, "a")
    await house.do("admin.vm.property.Set", "a", "netvm", "net")
    limit(house, bob=Allowance(memory=400 * MIB))
    raise_memory_during_start(house)
    with pytest.raises(OverLimit) as caught:
        await house.answer("admin.vm.Start", "a")
    assert caught.value.owner == house.qube(BOB).uuid
    assert (used(house).running, used(house, BOB).running) == (0, 0)


@scene
async def test_a_netvm_that_gets_a_netvm_while_it_starts_along_counts_that_too(house: House) -> None:
    for name in ("near", "far"):
        await make(house, name, caller=BOB)
        await house.do("admin.vm.property.Set", name, "provides_network", "True")
    await make(house, "a")
    await house.do("admin.vm.property.Set", "a", "netvm", "near")
    limit(house, bob=Allowance(running=1))

    def change(event: DomainPreStart) -> None:
        if event.subject == "a":
            near = house.qube("near").with_property("netvm", "far")
            house.core.change(house.core.system.with_qube(near), [near.name])

    house.core.bus.subscribe(DomainPreStart, change)
    with pytest.raises(OverLimit) as caught:
        await house.answer("admin.vm.Start", "a")
    assert caught.value.owner == house.qube(BOB).uuid
    assert {house.core.running(name).state for name in ("a", "near", "far")} == {"Halted"}
    limit(house, bob=Allowance(running=2))
    await house.do("admin.vm.Start", "a")
    assert used(house, BOB).running == 2


@scene
async def test_a_netvm_of_the_same_owner_counts_with_its_client(house: House) -> None:
    await make(house, "net")
    await house.do("admin.vm.property.Set", "net", "provides_network", "True")
    await make(house, "a")
    await house.do("admin.vm.property.Set", "a", "netvm", "net")
    limit(house, alice=Allowance(running=1))
    assert (await refused(house, "admin.vm.Start", "a")).detail == "running: 0 of 1"
    await house.do("admin.vm.Start", "net")
    assert (await refused(house, "admin.vm.Start", "a")).detail == "running: 1 of 1"


@scene
async def test_a_start_that_fails_gives_its_place_back(house: House) -> None:
    for name in ("a1", "a2"):
        await make(house, name)
    limit(house, alice=Allowance(running=1))
    await house.do("admin.vm.feature.Set", "a1", "prohibit-start", "broken")
    assert await house.call("admin.vm.Start", "a1") == "QubesException"
    assert used(house).running == 0
    await house.do("admin.vm.Start", "a2")


@scene
async def test_a_create_that_fails_gives_its_place_back(house: House) -> None:
    limit(house, alice=Allowance(qubes=1))
    words = ("admin.vm.Create.AppVM", "dom0", "debian-13", "name=a label=red")
    in_the_way = house.core.config.qubes_dir / "appvms/a/private.img"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    assert await house.call(*words, caller=ALICE) == "StoragePoolException"
    assert used(house) == Use()
    in_the_way.unlink()
    with unwritable(house.core.config.store):
        assert await house.call(*words, caller=ALICE) == "QubesException"
    assert used(house) == Use()
    await make(house, "a")


@scene
async def test_above_a_lowered_limit_nothing_grows_and_the_rest_goes_on(house: House) -> None:
    for name in ("a1", "a2"):
        await make(house, name)
        await house.do("admin.vm.Start", name)
    limit(house, alice=Allowance(1, 1, 1, 1))
    await house.do("admin.vm.tag.Set", "a1", "team")
    await house.do("admin.vm.property.Set", "a1", "memory", "300")
    await house.do("admin.vm.Kill", "a1")
    await refused(house, "admin.vm.Start", "a1")
    await refused(house, "admin.vm.volume.Resize", "a1", "private", str(PRIVATE + 1))
    await house.do("admin.vm.volume.Resize", "a1", "private", str(PRIVATE - 4096))
    await house.do("admin.vm.Remove", "a1")
    await refused(house, "admin.vm.Create.AppVM", "dom0", "debian-13", "name=a3 label=red", caller=ALICE)
    assert used(house) == Use(1, 1, 400 * MIB, PRIVATE)


@scene
async def test_an_owner_that_is_gone(house: House) -> None:
    await make(house, "a")
    await house.do("admin.vm.feature.Set", "a", OWNER, "11111111-2222-3333-4444-555555555555")
    await house.do("admin.vm.Start", "a")
    await house.do("admin.vm.Kill", "a")
    house.core.budgets.allowance_of = lambda owner: Allowance(running=0) if owner is None else UNLIMITED
    await refused(house, "admin.vm.Start", "a")
    await house.do("admin.vm.feature.Remove", "a", OWNER)
    await house.do("admin.vm.Start", "a")
