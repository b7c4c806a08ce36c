"""What running qubes announce, followed while they run: what is told of a change and what follows from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase

import pytest

from qubesd.core import block
from qubesd.core.device_questions import Question
from qubesd.errors import QubesError
from qubesd.model.devices import Device
from qubesd.model.state import Assignment
from qubesd.virt.embedded import Embedded
from qubesd.virt.hypervisor import Disk, Hypervisor
from tests.qubesd.core.power_rig import Rig, faulty, play
from tests.qubesd.core.test_devices import announce, settled
from tests.qubesd.hardware import pull_out
from tests.qubesd.house import House, visit

BLOCK = "admin.vm.device.block"
ATTACHED, ASSIGN = f"{BLOCK}.Attached", f"{BLOCK}.Assign"


class Hand:
    """Tells of a change when the test says so, once."""

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[], None]] = {}
        self.looks = 0

    def watch(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        self.waiting[name] = changed
        self.looks += 1

        def unwatch() -> None:
            if self.waiting.get(name) is changed:
                del self.waiting[name]

        return unwatch

    async def change(self, house: House, name: str) -> None:
        """Something changed; returns when it was looked at and all that follows has been done."""
        before = self.looks
        self.waiting.pop(name)()
        async with asyncio.timeout(20):
            while self.looks == before:
                await asyncio.sleep(0.005)
        await settled(house)


def withdraw(root: Path, port: str, backend: str = "sys-net") -> None:
    pull_out(root, backend, port)


def followed(root: Path, guest: Callable[[House, Hand], Awaitable[None]]) -> None:
    """``sys-net``, which announces ``sda``, and ``work`` run, and their lists are followed."""
    hand = Hand()

    async def story(house: House) -> None:
        announce(root, "sda")
        for name in ("sys-net", "work"):
            await house.do("admin.vm.Start", name)
        await settled(house)
        house.names()
        await guest(house, hand)

    visit(root, story, watch=hand.watch)
    assert hand.waiting == {}


def test_a_list_is_followed_as_long_as_its_qube_runs(tmp_path: Path) -> None:
    async def guest(house: House, hand: Hand) -> None:
        assert sorted(hand.waiting) == ["sys-net", "work"]
        await house.do("admin.vm.Kill", "work")
        assert sorted(hand.waiting) == ["sys-net"]
        await house.do("admin.vm.Start", "work")
        await settled(house)
        assert sorted(hand.waiting) == ["sys-net", "work"]

    followed(tmp_path, guest)


def replug(root: Path) -> None:
    withdraw(root, "sda")
    announce(root, "sda", parent="1-2:1.0")


def rename(root: Path) -> None:
    withdraw(root, "sda")
    announce(root, "sda", desc="Other (label)")


LIST = ["sys-net domain-qdb-change:/qubes-block-devices", "sys-net device-list-change:block"]
LOST = ["work device-pre-detach:block", "work device-detach:block"]
GIVEN = ["work device-pre-attach:block", "work device-attach:block"]


@pytest.mark.parametrize(
    ("assigned", "change", "told", "has"),
    [
        pytest.param("", lambda root: None, [], "sda", id="nothing-changed"),
        pytest.param("", rename, LIST, "sda", id="another-label"),
        pytest.param(
            "",
            lambda root: announce(root, "sdb"),
            [*LIST, "sys-net device-added:block"],
            "sda",
            id="one-more",
        ),
        pytest.param(
            "sdb",
            lambda root: announce(root, "sdb"),
            [*LIST, "sys-net device-added:block", *GIVEN],
            "sda sdb",
            id="one-more-that-is-assigned",
        ),
        pytest.param(
            "",
            lambda root: withdraw(root, "sda"),
            [*LIST, *LOST, "sys-net device-removed:block"],
            "",
            id="gone-while-attached",
        ),
        pytest.param(
            "",
            replug,
            [*LIST, *LOST, "sys-net device-removed:block", "sys-net device-added:block"],
            "",
            id="another-device-at-the-port",
        ),
        pytest.param(
            "sda",
            replug,
            [*LIST, *LOST, "sys-net device-removed:block", "sys-net device-added:block", *GIVEN],
            "sda",
            id="another-device-at-a-port-that-is-assigned",
        ),
    ],
)
def test_what_is_told_of_a_change(
    tmp_path: Path, assigned: str, change: Callable[[Path], object], told: list[str], has: str
) -> None:
    async def guest(house: House, hand: Hand) -> None:
        await house.do(f"{BLOCK}.Attach", "work", "sys-net+sda")
        if assigned:
            await house.do(ASSIGN, "work", f"sys-net+{assigned}", "mode='auto-attach'")
        house.names()
        change(tmp_path)
        await hand.change(house, "sys-net")
        assert house.names() == told
        lines = (await house.call(ATTACHED, "work")).splitlines()
        assert " ".join(line.split("+")[1].split(":")[0] for line in lines) == has

    followed(tmp_path, guest)


def test_a_device_that_was_attached_and_gone_before_anybody_looked(tmp_path: Path) -> None:
    async def guest(house: House, hand: Hand) -> None:
        announce(tmp_path, "sdb")
        await house.do(f"{BLOCK}.Attach", "work", "sys-net+sdb")
        house.names()
        withdraw(tmp_path, "sdb")
        await hand.change(house, "sys-net")
        assert house.names() == LOST

    followed(tmp_path, guest)


def test_a_required_device_that_is_gone_is_taken_and_comes_back(tmp_path: Path) -> None:
    async def guest(house: House, hand: Hand) -> None:
        await house.do(ASSIGN, "web-dvm", "sys-net+sda", "mode='required'")
        await house.do("admin.vm.Start", "web-dvm")
        assert await house.call(ATTACHED, "web-dvm")
        withdraw(tmp_path, "sda")
        await hand.change(house, "sys-net")
        assert await house.call(ATTACHED, "web-dvm") == ""
        assert house.core.running("web-dvm").state == "Running"
        announce(tmp_path, "sda")
        await hand.change(house, "sys-net")
        assert await house.call(ATTACHED, "web-dvm")

    followed(tmp_path, guest)


def test_two_starts_that_require_one_device(tmp_path: Path) -> None:
    async def guest(house: House, hand: Hand) -> None:
        await house.do("admin.vm.Kill", "work")
        for name in ("work", "web-dvm"):
            await house.do(ASSIGN, name, "sys-net+sda", "mode='required'")
        answers = await asyncio.gather(*(house.call("admin.vm.Start", name) for name in ("work", "web-dvm")))
        assert sorted(answers) == ["", "DeviceAlreadyAttached"]

    followed(tmp_path, guest)


def test_two_wishes_may_mean_one_required_device(tmp_path: Path) -> None:
    async def guest(house: House, hand: Hand) -> None:
        for wanted in ("sys-net+sda", "sys-net+sda+sda+None"):
            await house.do(ASSIGN, "web-dvm", wanted, "mode='required'")
        await house.do("admin.vm.Start", "web-dvm")
        assert (await house.call(ATTACHED, "web-dvm")).count("\n") == 1

    followed(tmp_path, guest)


def test_a_list_that_never_rests_is_looked_at_less_and_less_often(tmp_path: Path) -> None:
    class Restless(Hand):
        def watch(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
            asyncio.get_running_loop().call_soon(changed)
            return super().watch(name, changed)

    hand = Restless()

    async def guest(house: House) -> None:
        await house.do("admin.vm.Start", "sys-net")
        await asyncio.sleep(1.5)
        assert 3 <= hand.looks <= 7  # after 0.05, 0.1, 0.2, 0.4, 0.8 seconds and once at the start

    visit(tmp_path, guest, watch=hand.watch)


def test_the_user_is_asked_about_a_few_devices_of_one_qube_at_a_time(tmp_path: Path) -> None:
    async def guest(house: House, hand: Hand) -> None:
        asked: list[Question] = []
        enough = asyncio.Event()

        async def ask(question: Question) -> str | None:
            asked.append(question)
            await enough.wait()
            return "deny"

        house.core.handing_out.ask = ask
        await house.do(ASSIGN, "work", "sys-net+_+1-2+1.0", "mode='ask-to-attach'")
        for number in range(30):
            announce(tmp_path, f"sd{number}", parent="1-2:1.0")
        await hand.change(house, "sys-net")
        assert len(asked) == 8
        enough.set()
        await settled(house)
        announce(tmp_path, "sdlast", parent="1-2:1.0")
        await hand.change(house, "sys-net")
        assert len(asked) == 9
        assert await house.call(ATTACHED, "work") == ""

    followed(tmp_path, guest)


def test_names_that_are_none_give_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def guest(house: House, hand: Hand) -> None:
        for number in range(50):
            announce(tmp_path, f"SD{number}\n")
        caplog.clear()
        await hand.change(house, "sys-net")
        assert house.names() == []
        assert caplog.messages == ["qube 'sys-net' announces 50 block devices of no valid name"]

    followed(tmp_path, guest)


def test_there_are_only_so_many_names_for_disks() -> None:
    device = Device("block", "sys-net", "sda", "sda:None", data={"device_node": "/dev/sda"})
    taken = [f"xvd{one}{two}" for one in ["", *ascii_lowercase] for two in ascii_lowercase]
    taken.remove("xvdzz")
    assert block.disk_of(device, {}, taken).target == "xvdzz"
    with pytest.raises(QubesError, match="no name left"):
        block.disk_of(device, {}, [*taken, "xvdzz"])


@pytest.mark.parametrize("gone", ["stopped", "started again", "pulled out"])
def test_a_device_that_goes_while_it_is_being_attached(tmp_path: Path, gone: str) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    def slow(driver: Embedded) -> Hypervisor:
        async def attach_disk(uuid: str, disk: Disk) -> None:
            begun.set()
            await may_end.wait()
            await driver.attach_disk(uuid, disk)

        wrapped: Hypervisor = faulty(attach_disk=attach_disk)(driver)
        return wrapped

    async def story(r: Rig) -> None:
        announce(tmp_path, "sda")
        for name in ("sys-net", "vault"):
            await r.core.power.start(r.qube(name))
        await r.until("sys-net device-added:block")
        wanted = Assignment("block", "sys-net", "sda")
        (device,) = await r.core.devices.exposed(r.qube("sys-net"), "block")
        attaching = asyncio.create_task(r.core.devices.give(r.qube("vault"), device, wanted))
        await begun.wait()
        looking = None
        if gone == "pulled out":
            withdraw(tmp_path, "sda")
            looking = asyncio.create_task(r.core.device_lists.look(r.qube("sys-net")))
            await r.until("sys-net device-list-change:block")
        else:
            await r.core.power.kill(r.qube("sys-net"))
            if gone == "started again":
                await r.core.power.start(r.qube("sys-net"))
        may_end.set()
        await attaching
        await r.until("vault device-detach:block")
        if looking is not None:
            await looking
        assert r.core.devices.attached(r.qube("vault"), "block") == []
        plugged = await r.core.hypervisor.plugged(r.qube("vault").uuid)
        assert [disk for disk in plugged.disks if disk.path == "/dev/sda"] == []
        assert [line for line in r.told() if line.startswith("vault device-")] == [
            "vault device-pre-attach:block",
            "vault device-attach:block",
            "vault device-pre-detach:block",
            "vault device-detach:block",
        ]

    play(tmp_path, story, slow)


@pytest.mark.parametrize("side", ["front end", "backend"])
def test_a_side_that_is_removed_after_its_run_leaves_nothing(tmp_path: Path, side: str) -> None:
    front, back = ("disp7", "sys-net") if side == "front end" else ("vault", "disp7")

    async def story(r: Rig) -> None:
        announce(tmp_path, "sda", backend=back)
        for name in (back, front):
            await r.core.power.start(r.qube(name))
        (device,) = await r.core.devices.exposed(r.qube(back), "block")
        await r.core.devices.give(r.qube(front), device, Assignment("block", back, "sda"))
        await r.core.power.kill(r.qube("disp7"))
        await r.until(f"{front} device-detach:block")
        await r.until("domain-delete")
        assert r.core.devices.holder(device) is None
        assert r.core.devices.held.out_of(back) == []
        assert r.told().count(f"{front} device-detach:block") == 1

    play(tmp_path, story)


def test_a_backend_that_is_assigned_stays_and_its_front_end_may_go(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        wish = Assignment("block", "disp7", "sda", mode="auto-attach")
        r.put(replace(r.qube("vault"), assignments=(wish,)))
        announce(tmp_path, "sda", backend="disp7")
        for name in ("disp7", "vault"):
            await r.core.power.start(r.qube(name))
        await r.until("vault device-attach:block")
        await r.core.power.kill(r.qube("disp7"))
        await r.until("vault device-detach:block")
        assert "disp7" in r.core.system.qubes
        await r.core.power.kill(r.qube("vault"))
        assert "domain-delete" not in r.told()

    play(tmp_path, story)


def test_a_qube_that_was_started_from_outside_is_followed_too(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        announce(tmp_path, "sda")
        await r.core.power.start(r.qube("sys-net"))
        await r.until("sys-net device-added:block")
        await r.core.power.kill(r.qube("sys-net"))
        r.told()
        r.domain("sys-net").create()
        await r.until("sys-net device-added:block")

    play(tmp_path, story)


def test_a_qube_that_is_started_again_from_outside_is_followed_once(tmp_path: Path) -> None:
    """Before its stop has been dealt with."""

    async def story(r: Rig) -> None:
        announce(tmp_path, "sda")
        await r.core.power.start(r.qube("sys-net"))
        await r.until("sys-net device-added:block")
        r.told()
        r.domain("sys-net").destroy()
        r.domain("sys-net").create()
        await r.until("sys-net device-added:block")
        await r.core.power.kill(r.qube("sys-net"))
        told = [line for line in r.told() if "device-" in line]
        assert told == [
            "sys-net device-removed:block",
            "sys-net device-list-change:block",
            "sys-net device-added:block",
            "sys-net device-removed:block",
        ]

    play(tmp_path, story)


def test_a_qube_that_stops_while_its_list_is_looked_at(tmp_path: Path) -> None:
    """Its end tells of all that it exposed, and the look of nothing more."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    def slow(driver: Embedded) -> Hypervisor:
        async def detach_disk(uuid: str, target: str) -> None:
            begun.set()
            await may_end.wait()
            await driver.detach_disk(uuid, target)

        wrapped: Hypervisor = faulty(detach_disk=detach_disk)(driver)
        return wrapped

    async def story(r: Rig) -> None:
        announce(tmp_path, "sda")
        announce(tmp_path, "sdb")
        for name in ("sys-net", "vault"):
            await r.core.power.start(r.qube(name))
        await r.until("sys-net device-added:block")
        device, _ = await r.core.devices.exposed(r.qube("sys-net"), "block")
        await r.core.devices.give(r.qube("vault"), device, Assignment("block", "sys-net", "sda"))
        r.told()
        withdraw(tmp_path, "sda")
        announce(tmp_path, "sdc")
        looking = asyncio.create_task(r.core.device_lists.look(r.qube("sys-net")))
        await begun.wait()
        await r.core.power.kill(r.qube("sys-net"))
        may_end.set()
        await looking
        await r.until("vault device-detach:block")
        assert [line for line in r.told() if "device-" in line] == [
            "sys-net device-list-change:block",
            "vault device-pre-detach:block",
            "sys-net device-removed:block",
            "sys-net device-removed:block",
            "vault device-detach:block",
        ]

    play(tmp_path, story, slow)
