"""The limit of storage holds for everything that can make a volume larger, from before the first byte on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from qubesd.core.budgets import Allowance
from qubesd.core.usage import Use
from tests.qubesd.core.test_budgets import ALICE, BOB, PRIVATE, limit, make, refused, scene, used
from tests.qubesd.core.test_durability import unwritable
from tests.qubesd.house import House, visit

VOLUME = "admin.vm.volume"
BEGIN, END = "internal.vm.volume.ImportBegin", "internal.vm.volume.ImportEnd"
MORE = PRIVATE + (1 << 20)


def size_on_disk(house: House, name: str) -> int:
    return (house.core.config.qubes_dir / f"appvms/{name}/private.img").stat().st_size


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((f"{VOLUME}.Resize", "a", "private", str(MORE)), id="volume"),
        pytest.param(
            ("admin.pool.volume.Resize", "dom0", "varlibqubes", f"appvms/a/private {MORE}"), id="pool-volume"
        ),
        pytest.param((BEGIN, "a", "private", str(MORE)), id="import-with-size"),
    ],
)
def test_larger(words: tuple[str, ...], tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await make(house, "a")
        limit(house, alice=Allowance(storage=MORE - 1))
        assert (await refused(house, *words)).have == PRIVATE
        limit(house, alice=Allowance(storage=MORE))
        await house.do(*words)
        assert used(house).storage == MORE

    visit(tmp_path, guest)


@scene
async def test_volumes_that_grow_at_once(house: House) -> None:
    names = [f"a{number}" for number in range(4)]
    for name in names:
        await make(house, name)
    limit(house, alice=Allowance(storage=4 * PRIVATE + 2 * (MORE - PRIVATE)))
    resizes = (house.call(f"{VOLUME}.Resize", name, "private", str(MORE)) for name in names)
    assert sorted(await asyncio.gather(*resizes)) == ["", "", *["PermissionDenied"] * 2]
    assert sorted(size_on_disk(house, name) for name in names) == [PRIVATE, PRIVATE, MORE, MORE]


@scene
async def test_a_resize_that_cannot_be_written_down_gives_its_room_back(house: House) -> None:
    await make(house, "a")
    limit(house, alice=Allowance(storage=MORE))
    with unwritable(house.core.config.store):
        assert await house.call(f"{VOLUME}.Resize", "a", "private", str(MORE)) == "QubesException"
    assert used(house).storage == size_on_disk(house, "a") == PRIVATE


@scene
async def test_what_is_not_kept_and_what_is_nobodys_do_not_count(house: House) -> None:
    await make(house, "a")
    limit(house, alice=Allowance(storage=PRIVATE))
    await house.do(f"{VOLUME}.Resize", "a", "volatile", str(20 * PRIVATE))
    await house.do(f"{VOLUME}.Resize", ALICE, "private", str(MORE))
    assert used(house).storage == PRIVATE


@scene
async def test_an_import_counts_from_its_beginning_to_its_end(house: House) -> None:
    for name in ("a1", "a2"):
        await make(house, name)
    limit(house, alice=Allowance(storage=PRIVATE + MORE))
    await house.do(BEGIN, "a1", "private", str(MORE), caller=ALICE)
    assert used(house).storage == PRIVATE + MORE
    await refused(house, f"{VOLUME}.Resize", "a2", "private", str(MORE))
    await refused(house, BEGIN, "a2", "private", str(MORE))
    assert await house.call(END, "a1", "private", "fail\nno more data", caller=ALICE) == "QubesException"
    assert used(house).storage == 2 * PRIVATE
    await house.do(BEGIN, "a2", "private", str(MORE), caller=ALICE)
    await house.do(END, "a2", "private", "ok", caller=ALICE)
    assert used(house).storage == PRIVATE + MORE
    assert size_on_disk(house, "a2") == MORE
    await house.do("admin.vm.Remove", "a2")
    assert used(house) == Use(qubes=1, storage=PRIVATE)


@scene
async def test_a_qube_that_goes_takes_its_import_along(house: House) -> None:
    await make(house, "a")
    await house.do(BEGIN, "a", "private", str(MORE), caller=ALICE)
    await house.do("admin.vm.Remove", "a")
    assert used(house) == Use()


@scene
async def test_a_clone(house: House) -> None:
    await make(house, "a")
    await house.do(f"{VOLUME}.Resize", BOB, "private", str(MORE))
    limit(house, alice=Allowance(storage=MORE - 1))

    async def token() -> str:
        return await house.call(f"{VOLUME}.CloneFrom", BOB, "private")

    await refused(house, f"{VOLUME}.CloneTo", "a", "private", await token())
    words = f"appvms/a/private {await token()}"
    await refused(house, "admin.pool.volume.CloneTo", "dom0", "varlibqubes", words)
    limit(house, alice=Allowance(storage=MORE))
    await house.do(f"{VOLUME}.CloneTo", "a", "private", await token())
    assert used(house).storage == size_on_disk(house, "a") == MORE


@scene
async def test_going_back_to_a_revision_that_was_larger(house: House) -> None:
    await make(house, "a")
    await house.do(f"{VOLUME}.Resize", "a", "private", str(MORE))
    revision = await house.call(f"{VOLUME}.Snapshot", "a", "private")
    await house.do(f"{VOLUME}.Resize", "a", "private", str(PRIVATE))
    limit(house, alice=Allowance(storage=MORE - 1))
    await refused(house, f"{VOLUME}.Revert", "a", "private", revision)
    limit(house, alice=Allowance(storage=MORE))
    await house.do(f"{VOLUME}.Revert", "a", "private", revision)
    assert used(house).storage == size_on_disk(house, "a") == MORE
