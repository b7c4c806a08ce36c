"""Devices on a real core: a guest's block devices through hot-plug, assignments, what comes and goes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.qubesd.house import House, visit

BLOCK = "admin.vm.device.block"
AVAILABLE, ATTACHED, ASSIGN = f"{BLOCK}.Available", f"{BLOCK}.Attached", f"{BLOCK}.Assign"


def announce(root: Path, port: str, backend: str = "sys-net", **keys: str) -> Path:
    """What the guest of ``backend`` would write into its QubesDB."""
    folder = root / f"run/qubesdb/{backend}/qubes-block-devices" / port
    folder.mkdir(parents=True)
    for key, value in {"desc": "Big_Disk (backup)", "size": "1024", "mode": "w", **keys}.items():
        (folder / key).write_text(value)
    return folder


def with_disk(tmp_path: Path, guest: Callable[[House], Awaitable[None]], **keys: str) -> None:
    """``sys-net`` runs and exposes ``sda``; so does ``work``."""

    async def story(house: House) -> None:
        announce(tmp_path, "sda", **keys)
        for name in ("sys-net", "work"):
            await house.do("admin.vm.Start", name)
        await house.core.devices.refresh(house.qube("sys-net"), "block")
        house.names()
        await guest(house)

    visit(tmp_path, story)


def test_a_disk_goes_to_one_qube_and_comes_back(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        line = await house.call(AVAILABLE, "sys-net")
        assert line.startswith("sda:sda:None device_id='sda:None' port_id='sda' devclass='block'")
        assert "name='backup' serial='Big Disk'" in line
        assert "attachment" not in line
        await house.do(f"{BLOCK}.Attach", "work", "sys-net+sda", "_read-only='yes'")
        assert house.names() == ["work device-pre-attach:block", "work device-attach:block"]
        assert "attachment='work'" in await house.call(AVAILABLE, "sys-net")
        assert await house.call(ATTACHED, "work") == (
            "sys-net+sda:sda:None device_id='sda:None' port_id='sda' devclass='block' "
            "backend_domain='sys-net' mode='manual' _read-only='yes'\n"
        )
        await house.do("admin.vm.Start", "web-dvm")
        for name in ("work", "web-dvm"):
            assert await house.call(f"{BLOCK}.Attach", name, "sys-net+sda") == "DeviceAlreadyAttached"
        await house.do(f"{BLOCK}.Detach", "work", "sys-net+sda")
        assert await house.call(ATTACHED, "work") == ""
        assert await house.call(f"{BLOCK}.Detach", "work", "sys-net+sda") == "DeviceNotAssigned"

    with_disk(tmp_path, guest)


def test_two_qubes_ask_at_once_and_one_gets_it(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Start", "web-dvm")
        answers = await asyncio.gather(
            *(house.call(f"{BLOCK}.Attach", name, "sys-net+sda") for name in ("work", "web-dvm"))
        )
        assert sorted(answers) == ["", "DeviceAlreadyAttached"]

    with_disk(tmp_path, guest)


@pytest.mark.parametrize(
    ("payload", "keys", "want"),
    [
        ("_frontend-dev='xvdi'", {}, ""),
        ("_frontend-dev='xvda'", {}, "QubesValueError"),
        ("_frontend-dev='../x'", {}, "QubesValueError"),
        ("_devtype='floppy'", {}, "QubesValueError"),
        ("_read-only='maybe'", {}, "QubesValueError"),
        ("_read-only='no'", {"mode": "r"}, "QubesValueError"),
        ("_other='1'", {}, "QubesValueError"),
        ("mode='required'", {}, ""),
        ("device_id='other:None'", {}, "ProtocolError"),
    ],
)
def test_options_of_a_disk(tmp_path: Path, payload: str, keys: dict[str, str], want: str) -> None:
    async def guest(house: House) -> None:
        assert await house.call(f"{BLOCK}.Attach", "work", "sys-net+sda", payload) == want

    with_disk(tmp_path, guest, **keys)


def test_denied_interfaces_bind_the_hand_only(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.device.denied.Add", "work", "", "b******")
        assert await house.call(f"{BLOCK}.Attach", "work", "sys-net+sda") == "PermissionDenied"
        await house.do("admin.vm.device.denied.Remove", "work", "", "all")
        await house.do(f"{BLOCK}.Attach", "work", "sys-net+sda")

    with_disk(tmp_path, guest)


def test_a_disk_that_is_pulled_out_is_taken_from_the_qube(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(f"{BLOCK}.Attach", "work", "sys-net+sda")
        house.names()
        shutil.rmtree(tmp_path / "run/qubesdb/sys-net/qubes-block-devices/sda")
        await house.core.devices.refresh(house.qube("sys-net"), "block")
        assert house.names() == [
            "sys-net device-list-change:block",
            "work device-pre-detach:block",
            "work device-detach:block",
            "sys-net device-removed:block",
        ]
        assert await house.call(ATTACHED, "work") == ""

    with_disk(tmp_path, guest)


def test_either_side_stops_and_the_attachment_ends(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        for stopped in ("work", "sys-net"):
            await house.do(f"{BLOCK}.Attach", "work", "sys-net+sda")
            house.names()
            await house.do("admin.vm.Kill", stopped)
            async with asyncio.timeout(20):
                seen: list[str] = []
                while "work device-detach:block" not in seen:
                    await asyncio.sleep(0.01)
                    seen += house.names()
            assert await house.call(ATTACHED, "work") == ""
            if stopped == "work":
                await house.do("admin.vm.Start", "work")

    with_disk(tmp_path, guest)


def test_what_is_assigned_comes_by_itself(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(ASSIGN, "work", "sys-net+sdb", "mode='auto-attach'")
        announce(tmp_path, "sdb")
        await house.core.devices.refresh(house.qube("sys-net"), "block")
        assert (await house.call(ATTACHED, "work")).startswith("sys-net+sdb:sdb:None ")
        await house.do("admin.vm.Kill", "work")
        await house.do("admin.vm.Start", "work")
        async with asyncio.timeout(20):
            while not await house.call(ATTACHED, "work"):
                await asyncio.sleep(0.01)

    with_disk(tmp_path, guest)


def test_a_required_device_is_there_or_the_qube_does_not_start(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Kill", "work")
        await house.do(ASSIGN, "work", "sys-net+sdb", "mode='required'")
        assert await house.call("admin.vm.Start", "work") == "QubesException"
        announce(tmp_path, "sdb")
        await house.do("admin.vm.Start", "work")
        assert "mode='required'" in await house.call(f"{BLOCK}.Assigned", "work")
        assert (await house.call(ATTACHED, "work")).startswith("sys-net+sdb:sdb:None ")
        assert await house.call(f"{BLOCK}.Detach", "work", "sys-net+sdb") == "QubesVMNotHaltedError"

    with_disk(tmp_path, guest)


def test_what_a_guest_announces_cannot_break_the_answer(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        announce(tmp_path, "SDX")
        announce(tmp_path, "sdc", desc="a' b='c\n\x1b[1m (x' y='z)", size="-1", mode="q", parent="../../etc")
        lines = (await house.call(AVAILABLE, "sys-net")).splitlines()
        assert [line.partition(" ")[0] for line in lines] == ["sda:sda:None", "sdc:sdc:None"]
        assert all(line.isascii() and line.isprintable() for line in lines)
        assert "b='c" not in lines[1]
        assert "_size='0'" in lines[1]

    with_disk(tmp_path, guest)


def test_the_calls_of_2017(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(f"{BLOCK}.Attach", "work", "sys-net+sda", "_read-only='yes'")
        assert await house.call(f"{BLOCK}.List", "work") == "sys-net+sda read-only=yes persistent=False\n"
        await house.do(f"{BLOCK}.Set.persistent", "work", "sys-net+sda", "True")
        assert await house.call(f"{BLOCK}.List", "work") == "sys-net+sda persistent=True\n"
        await house.do(f"{BLOCK}.Set.required", "work", "sys-net+sda", "True")
        assert "mode='required'" in await house.call(f"{BLOCK}.Assigned", "work")
        await house.do(f"{BLOCK}.Set.required", "work", "sys-net+sda", "False")
        assert "mode='auto-attach'" in await house.call(f"{BLOCK}.Assigned", "work")
        await house.do(f"{BLOCK}.Set.persistent", "work", "sys-net+sda", "False")
        assert await house.call(f"{BLOCK}.Assigned", "work") == ""

    with_disk(tmp_path, guest)
