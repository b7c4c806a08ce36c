"""Devices on a real core: a guest's block devices through hot-plug, assignments, what comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qubesd.core.device_questions import Question
from tests.qubesd.hardware import plug_in, pull_out
from tests.qubesd.house import House, visit

BLOCK = "admin.vm.device.block"
AVAILABLE, ATTACHED, ASSIGN = f"{BLOCK}.Available", f"{BLOCK}.Attached", f"{BLOCK}.Assign"


def announce(root: Path, port: str, backend: str = "sys-net", **keys: str) -> Path:
    """What the guest of ``backend`` would write into its QubesDB."""
    told = {"desc": "Big_Disk (backup)", "size": "1024", "mode": "w", **keys}
    return plug_in(root, backend, port, **told)


def with_disk(tmp_path: Path, guest: Callable[[House], Awaitable[None]], **keys: str) -> None:
    """``sys-net`` runs and exposes ``sda``; so does ``work``."""

    async def story(house: House) -> None:
        announce(tmp_path, "sda", **keys)
        for name in ("sys-net", "work"):
            await house.do("admin.vm.Start", name)
        await house.core.device_lists.look(house.qube("sys-net"))
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
        pull_out(tmp_path, "sys-net", "sda")
        await house.core.device_lists.look(house.qube("sys-net"))
        assert house.names() == [
            "sys-net domain-qdb-change:/qubes-block-devices",
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
        await house.core.device_lists.look(house.qube("sys-net"))
        assert (await house.call(ATTACHED, "work")).startswith("sys-net+sdb:sdb:None ")
        await house.do("admin.vm.Kill", "work")
        await house.do("admin.vm.Start", "work")
        async with asyncio.timeout(20):
            while not await house.call(ATTACHED, "work"):
                await asyncio.sleep(0.01)

    with_disk(tmp_path, guest)


class User:
    """Whoever sits in front of the GUI qube: keeps the questions and answers each when told to."""

    def __init__(self, house: House, answer: str | None) -> None:
        self.answer = answer
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[Question] = []
        self.has_been_asked = asyncio.Event()
        house.core.handing_out.ask = self._ask

    async def _ask(self, question: Question) -> str | None:
        self.asked.append(question)
        self.has_been_asked.set()
        await self.may_answer.wait()
        return self.answer


async def settled(house: House) -> None:
    """What goes on behind the calls has ended."""
    while tasks := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
        done, _ = await asyncio.wait(tasks, timeout=0.2)
        if not done:
            return


async def plugged_in_late(house: House, root: Path, *modes: tuple[str, str]) -> None:
    """``work`` and ``web-dvm`` run with these wishes, and then a disk comes."""
    for name, mode in modes:
        await house.do(ASSIGN, name, "sys-net+sdb", f"mode='{mode}'")
        if house.core.running(name).state == "Halted":
            await house.do("admin.vm.Start", name)
    await settled(house)
    announce(root, "sdb")
    await house.core.device_lists.look(house.qube("sys-net"))


@pytest.mark.parametrize(
    ("answer", "attached"),
    [
        ("allow:work", True),
        ("allow:work\n", True),
        ("deny", False),
        ("", False),
        ("allow:", False),
        ("allow:web-dvm", False),
        ("ALLOW:work", False),
        ("allow:work allow:work", False),
        (None, False),
    ],
)
def test_a_device_to_be_asked_about_comes_only_with_the_users_yes(
    tmp_path: Path, answer: str | None, attached: bool
) -> None:
    async def guest(house: House) -> None:
        user = User(house, answer)
        await plugged_in_late(house, tmp_path, ("work", "ask-to-attach"))
        await settled(house)
        (question,) = user.asked
        assert question == Question(
            screen="dom0",
            source="sys-net",
            device_name="backup",
            argument="sdb",
            targets=("work",),
            icons={"sys-net": "servicevm-red", "work": "appvm-red"},
        )
        assert question.default_target == "work"
        assert bool(await house.call(ATTACHED, "work")) is attached

    with_disk(tmp_path, guest)


def test_the_user_is_asked_when_the_qube_starts_too(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        user = User(house, "allow:web-dvm")
        await house.do(ASSIGN, "web-dvm", "sys-net+sda", "mode='ask-to-attach'")
        await house.do("admin.vm.Start", "web-dvm")
        await settled(house)
        assert [question.targets for question in user.asked] == [("web-dvm",)]
        assert await house.call(ATTACHED, "web-dvm")

    with_disk(tmp_path, guest)


def test_where_two_are_to_have_it_the_user_is_asked_once(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        user = User(house, "allow:work")
        await plugged_in_late(house, tmp_path, ("work", "auto-attach"), ("web-dvm", "auto-attach"))
        await settled(house)
        assert [question.targets for question in user.asked] == [("web-dvm", "work")]
        assert user.asked[0].default_target == ""
        assert await house.call(ATTACHED, "work")
        assert not await house.call(ATTACHED, "web-dvm")

    with_disk(tmp_path, guest)


@pytest.mark.parametrize("meanwhile", ["taken back", "another device", "stopped"])
def test_a_yes_is_for_what_was_asked_and_for_nothing_else(tmp_path: Path, meanwhile: str) -> None:
    async def guest(house: House) -> None:
        user = User(house, "allow:work")
        user.may_answer.clear()
        await plugged_in_late(house, tmp_path, ("work", "ask-to-attach"))
        await user.has_been_asked.wait()
        match meanwhile:
            case "taken back":
                await house.do(f"{BLOCK}.Unassign", "work", "sys-net+sdb")
            case "another device":
                pull_out(tmp_path, "sys-net", "sdb")
                announce(tmp_path, "sdb", parent="1-2:1.0")
            case "stopped":
                await house.do("admin.vm.Kill", "work")
        user.may_answer.set()
        await settled(house)
        assert not await house.call(ATTACHED, "work")

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


USB, MIC = "admin.vm.device.usb", "admin.vm.device.mic"


def announce_usb(root: Path, port: str) -> Path:
    return plug_in(root, "sys-net", port, "usb", desc="0951:1666 Kingston Stick")


def test_a_usb_device_comes_and_goes_by_hand_and_by_itself(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        announce_usb(tmp_path, "2-1")
        await house.core.device_lists.look(house.qube("sys-net"))
        house.names()
        await house.do(f"{USB}.Attach", "work", "sys-net+2-1")
        assert house.names() == ["work device-pre-attach:usb", "work device-attach:usb"]
        assert "sys-net+2-1" in await house.call(f"{USB}.Attached", "work")
        assert await house.call(f"{USB}.Attach", "work", "sys-net+2-1") == "DeviceAlreadyAttached"
        await house.do(f"{USB}.Detach", "work", "sys-net+2-1")
        assert house.names() == ["work device-pre-detach:usb", "work device-detach:usb"]
        await house.do(f"{USB}.Assign", "work", "sys-net+2-2", "mode='auto-attach'")
        announce_usb(tmp_path, "2-2")
        await house.core.device_lists.look(house.qube("sys-net"))
        assert "sys-net+2-2" in await house.call(f"{USB}.Attached", "work")
        await house.do("admin.vm.Kill", "sys-net")
        await settled(house)
        assert await house.call(f"{USB}.Attached", "work") == ""

    with_disk(tmp_path, guest)


def test_the_microphone_goes_to_one_qube(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Start", "web-dvm")
        await house.do(f"{MIC}.Attach", "work", "dom0+mic")
        assert await house.call(f"{MIC}.Attach", "web-dvm", "dom0+mic") == "DeviceAlreadyAttached"
        assert "attachment='work'" in await house.call(f"{MIC}.Available", "dom0")
        await house.do("admin.vm.Kill", "work")
        await house.do(f"{MIC}.Attach", "web-dvm", "dom0+mic")
        assert await house.call(f"{MIC}.Attach", "web-dvm", "dom0+mic", "_volume='11'") != ""

    with_disk(tmp_path, guest)


@pytest.mark.parametrize(("service", "device"), [(USB, "sys-net+2-1"), (MIC, "dom0+mic")])
def test_what_cannot_be_there_before_the_start_keeps_the_qube_from_starting(
    tmp_path: Path, service: str, device: str
) -> None:
    async def guest(house: House) -> None:
        announce_usb(tmp_path, "2-1")
        await house.do(f"{service}.Assign", "web-dvm", device, "mode='required'")
        assert await house.call("admin.vm.Start", "web-dvm") == "QubesNotImplementedError"
        assert await house.call(f"{service}.Attach", "work", device, "_any='1'") == "QubesValueError"

    with_disk(tmp_path, guest)
