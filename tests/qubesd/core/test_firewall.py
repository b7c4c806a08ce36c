"""The firewall of a qube on a real core: durable, copied to disposables, gone with its qube, expiring."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.qubesd.house import House, visit

SET, GET = "admin.vm.firewall.Set", "admin.vm.firewall.Get"


def test_rules_end_when_they_expire_and_that_is_told(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        soon = int(time.time()) + 1
        await house.do(SET, "work", "", f"action=accept expire={soon}\naction=drop\n")
        assert await house.call(GET, "work") == f"action=accept expire={soon}\naction=drop\n"
        house.names()
        async with asyncio.timeout(20):
            while "work firewall-changed" not in house.names():
                await asyncio.sleep(0.01)
        assert await house.call(GET, "work") == "action=drop\n"
        file = tmp_path / "var/lib/qubes/appvms/work/firewall.xml"
        assert "expire" not in file.read_text()

    visit(tmp_path, guest)


def test_a_new_qube_of_an_old_name_has_no_rules_of_it(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(SET, "work", "", "action=drop\n")
        await house.do("admin.vm.notes.Set", "work", "", "mine")
        await house.do("admin.vm.Remove", "work")
        assert not (tmp_path / "var/lib/qubes/appvms/work").exists()
        await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=work label=red")
        assert await house.call(GET, "work") == "action=accept\n"
        assert await house.call("admin.vm.notes.Get", "work") == ""

    visit(tmp_path, guest)


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_accepted_for_it(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(SET, "work", "", "action=drop\n")
        (tmp_path / "var/lib/qubes/appvms/work/firewall.xml").write_text("<firewall version='9'/>")
        assert await house.call(GET, "work") == "QubesVMError"

    visit(tmp_path, guest)


def test_notes_hold_what_a_display_can_show(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.notes.Set", "work", "", "a\u202eb\x1b[1m\té\n")
        assert await house.call("admin.vm.notes.Get", "work") == "a_b_[1m\té\n"
        await house.do("admin.vm.notes.Set", "work", "", "")
        assert await house.call("admin.vm.notes.Get", "work") == ""

    visit(tmp_path, guest)
