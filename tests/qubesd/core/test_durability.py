"""A change that could not be written is no change: not in memory, not in lists, not for those who waited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from qubesd.core.opening import open_core
from qubesd.errors import NotSupported, StoreError
from qubesd.events import SystemRestored
from tests.qubesd.house import House, config_at, visit


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """The file looks as if somebody else had changed it; it must not be opened, or its lock would be lost."""
    was = path.stat()
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    try:
        yield
    finally:
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def test_answered_change_survives_a_restart(tmp_path: Path) -> None:
    async def change(house: House) -> None:
        await house.do("admin.vm.property.Set", "work", "memory", "512")
        await house.do("admin.vm.tag.Set", "work", "team")

    async def look(house: House) -> None:
        assert house.qube("work").properties["memory"] == 512
        assert "team" in house.qube("work").tags

    visit(tmp_path, change)
    visit(tmp_path, look, furnished=False)


def test_failed_write_leaves_the_state_that_is_on_the_disk(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        before = house.core.system
        restored: list[SystemRestored] = []
        house.core.bus.subscribe(SystemRestored, restored.append)
        listed = await house.call("admin.vm.List")
        with unwritable(house.core.config.store):
            with pytest.raises(StoreError, match="changed by someone else"):
                await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=late label=red")
            assert house.core.system == before
            assert len(restored) == 1
            assert await house.call("admin.vm.List") == listed
        await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=late label=red")

    visit(tmp_path, guest)


def test_all_that_wait_for_one_write_learn_that_it_failed(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        calls = [
            house.call("admin.vm.property.Set", "work", "memory", str(500 + number)) for number in range(20)
        ]
        with unwritable(house.core.config.store):
            assert set(await asyncio.gather(*calls)) == {StoreError.wire_name}
        assert "memory" not in house.qube("work").properties

    visit(tmp_path, guest)


def test_qube_whose_removal_failed_can_be_removed_later(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        with unwritable(house.core.config.store):
            assert await house.call("admin.vm.Remove", "work") == StoreError.wire_name
        await house.do("admin.vm.Start", "work")
        await house.do("admin.vm.Kill", "work")
        await house.do("admin.vm.Remove", "work")

    visit(tmp_path, guest)


def test_concurrent_changes_all_stay(tmp_path: Path) -> None:
    async def change(house: House) -> None:
        await asyncio.gather(
            *(house.do("admin.vm.tag.Set", "work", f"tag-{number}") for number in range(50)),
            *(house.do("admin.vm.feature.Set", "work", f"f{number}", "1") for number in range(50)),
        )

    async def look(house: House) -> None:
        assert {f"tag-{number}" for number in range(50)} <= house.qube("work").tags
        assert len(house.qube("work").features) == 50

    visit(tmp_path, change)
    visit(tmp_path, look, furnished=False)


def test_missing_store_is_not_made_unless_asked_for(tmp_path: Path) -> None:
    async def opening() -> None:
        async with open_core(config_at(tmp_path)):
            pass

    with pytest.raises(StoreError, match=r"qubes\.xml: not found"):
        asyncio.run(opening())
    assert not config_at(tmp_path).store.exists()


def test_unknown_hypervisor_is_named(tmp_path: Path) -> None:
    async def opening() -> None:
        async with open_core(replace(config_at(tmp_path), hypervisor="abacus"), create=True):
            pass

    with pytest.raises(NotSupported, match="'abacus'"):
        asyncio.run(opening())
