"""What may be removed, and what whose removal is refused leaves behind: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qubesd.core.removal import remove
from qubesd.core.tags import add_tag
from qubesd.errors import NoSuchQube, QubeInUse
from qubesd.model.state import Assignment
from tests.qubesd.house import House, visit

SET, SET_GLOBAL = "admin.vm.property.Set", "admin.property.Set"


@pytest.mark.parametrize(
    ("setting", "victim", "want"),
    [
        pytest.param((), "work", "", id="free"),
        pytest.param((), "dom0", "QubesVMInUseError", id="dom0"),
        pytest.param((), "debian-13", "QubesVMInUseError", id="template"),
        pytest.param((SET, "work", "netvm", "sys-net"), "sys-net", "QubesVMInUseError", id="netvm"),
        pytest.param(
            (SET_GLOBAL, "dom0", "default_netvm", "sys-net"), "sys-net", "QubesVMInUseError", id="default"
        ),
        pytest.param((SET_GLOBAL, "dom0", "clockvm", "work"), "work", "QubesVMInUseError", id="clock"),
        pytest.param((SET, "web-dvm", "default_dispvm", "web-dvm"), "web-dvm", "", id="by-itself-only"),
        pytest.param((SET, "work", "installed_by_rpm", "True"), "work", "QubesVMInUseError", id="package"),
        pytest.param(("admin.vm.Start", "work"), "work", "QubesVMNotHaltedError", id="running"),
    ],
)
def test_remove(setting: Sequence[str], victim: str, want: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        if setting:
            await house.do(*setting)
        before = house.core.system
        assert await house.call("admin.vm.Remove", victim) == want
        assert (victim in house.core.system.qubes) is (want != "")
        if want:
            assert house.core.system is before

    visit(tmp_path, guest)


def test_refusal_does_not_tell_who_uses_it(tmp_path: Path) -> None:
    """The attack: a caller learns names of hidden qubes by trying to remove what it may."""

    async def guest(house: House) -> None:
        await house.do(SET, "work", "netvm", "sys-net")
        with pytest.raises(QubeInUse, match="in use") as refusal:
            await house.do("admin.vm.Remove", "sys-net")
        assert "work" not in str(refusal.value)

    visit(tmp_path, guest)


def test_owner_of_an_assigned_device_stays(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        core = house.core
        assignment = Assignment("block", "sys-net", "sda")
        work = house.qube("work")
        core.change(core.system.with_qube(replace(work, assignments=(assignment,))), ["work"])
        assert await house.call("admin.vm.Remove", "sys-net") == "QubesVMInUseError"

    visit(tmp_path, guest)


def test_property_of_another_version_is_no_reference(tmp_path: Path) -> None:
    """A file may hold a property that no table knows; what it means is not known either."""

    async def guest(house: House) -> None:
        core = house.core
        core.change(core.system.with_qube(house.qube("web-dvm").with_property("friend", "work")), ["web-dvm"])
        assert await house.call("admin.vm.Remove", "work") == ""

    visit(tmp_path, guest)


def test_two_removals_at_once_remove_once(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        answers = await asyncio.gather(*(house.call("admin.vm.Remove", "work") for _ in range(2)))
        assert sorted(answers) == ["", "QubesVMNotFoundError"]
        assert house.names() == ["domain-pre-delete", "domain-delete"]

    visit(tmp_path, guest)


def test_start_and_removal_at_once(tmp_path: Path) -> None:
    """Whichever comes first, no domain is left without its qube."""

    async def guest(house: House) -> None:
        uuid = house.qube("work").uuid
        answers = await asyncio.gather(
            house.call("admin.vm.Start", "work"), house.call("admin.vm.Remove", "work")
        )
        assert tuple(answers) in (("", "QubesVMNotHaltedError"), ("QubesVMNotFoundError", ""))
        assert (uuid in await house.core.hypervisor.domains()) is (answers[0] == "")

    visit(tmp_path, guest)


def test_qube_made_anew_under_an_old_name_is_another_one(tmp_path: Path) -> None:
    """What was judged is what is done: a call that was judged for the old one does not touch the new one."""

    async def guest(house: House) -> None:
        judged = house.qube("work")
        await house.do("admin.vm.Remove", "work")
        await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=work label=red")
        with pytest.raises(NoSuchQube):
            add_tag(house.core, judged, "team")

    visit(tmp_path, guest)


def test_what_counts_is_the_qube_as_it_is_now(tmp_path: Path) -> None:
    """A call may wait for the qube's lock, and the record that it was judged with is old by then."""

    async def guest(house: House) -> None:
        judged = house.qube("work")
        await house.do(SET, "work", "installed_by_rpm", "True")
        with pytest.raises(QubeInUse, match="package"):
            await remove(house.core, house.core.storage, judged)

    visit(tmp_path, guest)
