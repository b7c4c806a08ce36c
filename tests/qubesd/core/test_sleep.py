"""The host sleeps and wakes: who was awake is so again, and who slept before sleeps on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from qubesd.core.features import set_feature
from qubesd.core.sleep import Sleep
from qubesd.errors import QubesError
from qubesd.model.state import Klass
from qubesd.virt.embedded import Embedded
from tests.faults.limits import files_end_at
from tests.qubesd.core.power_rig import Faulty, Rig, play
from tests.qubesd.core.test_guests import program
from tests.qubesd.core.test_preloading import ask, is_full, make_one_that_never_answers, queue, until
from tests.qubesd.house import House, visit


def states(house: House) -> dict[str, str]:
    names = ("work", "sys-net", "web-dvm")
    return {name: house.core.running(name).state for name in names}


def test_who_was_awake_is_awake_again(tmp_path: Path) -> None:
    listed = tmp_path / "run/qubes/previously-paused.list"

    async def guest(house: House) -> None:
        for name in ("work", "sys-net"):
            await house.do("admin.vm.Start", name)
        await house.do("admin.vm.Pause", "sys-net")
        house.names()
        await house.core.sleep.begin()
        assert house.names() == ["work domain-pre-paused", "work domain-paused"]
        assert listed.read_text() == "sys-net\n"
        assert states(house) == {"work": "Paused", "sys-net": "Paused", "web-dvm": "Halted"}
        await house.core.sleep.end()
        assert house.names() == ["work domain-pre-unpaused", "work domain-unpaused"]
        assert states(house) == {"work": "Running", "sys-net": "Paused", "web-dvm": "Halted"}
        assert not listed.exists()

    visit(tmp_path, guest)


def test_who_slept_before_sleeps_on_after_a_beginning_without_room(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        for name in ("work", "sys-net"):
            await house.do("admin.vm.Start", name)
        await house.do("admin.vm.Pause", "sys-net")
        with files_end_at(0), pytest.raises(QubesError, match=r"previously-paused\.list: .* and try again"):
            await house.core.sleep.begin()
        assert states(house) == {"work": "Running", "sys-net": "Paused", "web-dvm": "Halted"}
        await house.core.sleep.begin()
        await house.core.sleep.end()
        assert states(house) == {"work": "Running", "sys-net": "Paused", "web-dvm": "Halted"}

    visit(tmp_path, guest)


def test_guests_are_told(tmp_path: Path) -> None:
    command, notes = program(tmp_path)

    async def guest(house: House) -> None:
        await house.do("admin.vm.feature.Set", "debian-13", "qrexec", "1")
        for name in ("work", "sys-net", "web-dvm"):
            await house.do("admin.vm.Start", name)
        await house.do("admin.vm.Pause", "web-dvm")
        await house.core.sleep.begin()
        await house.core.sleep.end()
        lines = notes.read_text().splitlines()
        steps = [sorted(lines[at : at + 2]) for at in range(0, len(lines), 2)]
        assert steps == [
            [f"{name}|root:qubes.{service} dom0|" for name in ("sys-net", "work")]
            for service in ("SuspendPreAll", "SuspendPre", "SuspendPostAll")
        ]

    visit(tmp_path, guest, guest_service=command)


def test_one_that_starts_while_guests_are_told_sleeps_too(tmp_path: Path) -> None:
    called, go_on = tmp_path / "called", tmp_path / "go-on"
    for pipe in (called, go_on):
        os.mkfifo(pipe)

    async def guest(house: House) -> None:
        await house.do("admin.vm.feature.Set", "debian-13", "qrexec", "1")
        await house.do("admin.vm.feature.Set", "web-dvm", "qrexec", "")
        await house.do("admin.vm.Start", "work")
        asleep = asyncio.create_task(house.core.sleep.begin())
        assert await asyncio.to_thread(called.read_text) == "qubes.SuspendPreAll\n"
        await house.do("admin.vm.Start", "web-dvm")
        await asyncio.to_thread(go_on.write_bytes, b"")
        assert await asyncio.to_thread(called.read_text) == "qubes.SuspendPre\n"
        await asyncio.to_thread(go_on.write_bytes, b"")
        await asleep
        assert states(house) == {"work": "Paused", "sys-net": "Halted", "web-dvm": "Paused"}

    wait = f"/bin/sh -c 'echo {{service}} > {called}; : < {go_on}'"
    visit(tmp_path, guest, guest_service=wait)


def test_what_was_made_ahead_goes_and_comes_again(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await ask(house, 2)
        waited = queue(house)
        await house.core.sleep.begin()
        assert queue(house) == []
        assert all(qube.klass is not Klass.DISPOSABLE for qube in house.core.system.qubes.values())
        assert not (tmp_path / "run/qubes/previously-paused.list").read_text()
        await house.core.sleep.end()
        await until(house, lambda: is_full(house, 2))
        assert set(queue(house)).isdisjoint(waited)

    visit(tmp_path, guest)


def test_one_made_ahead_whose_guest_never_answers_goes_at_once(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await make_one_that_never_answers(house)
        async with asyncio.timeout(20):
            await house.core.sleep.begin()
        assert queue(house) == []
        assert all(qube.klass is not Klass.DISPOSABLE for qube in house.core.system.qubes.values())

    visit(tmp_path, guest)


def test_one_that_cannot_be_suspended_is_named_and_the_others_are(tmp_path: Path) -> None:
    """The next try does not take those for sleepers of before that the first one suspended."""
    stubborn: set[str] = set()

    def wrap(driver: Embedded) -> Faulty:
        async def pause(uuid: str) -> None:
            if uuid in stubborn:
                raise QubesError("no")
            await driver.pause(uuid)

        return Faulty(driver, pause=pause)

    async def story(rig: Rig) -> None:
        for name in ("vault", "dvm", "sys-net"):
            await rig.core.power.start(rig.qube(name))
        await rig.core.power.pause(rig.qube("sys-net"))
        stubborn.add(rig.qube("vault").uuid)
        with pytest.raises(QubesError, match="not suspended: 'vault': no"):
            await rig.core.sleep.begin()
        assert [rig.state(name) for name in ("vault", "dvm", "sys-net")] == ["Running", "Paused", "Paused"]
        stubborn.clear()
        await rig.core.sleep.begin()
        assert rig.state("vault") == "Paused"
        await rig.core.sleep.end()
        assert [rig.state(name) for name in ("vault", "dvm", "sys-net")] == ["Running", "Running", "Paused"]

    play(tmp_path, story, wrap)


def test_one_whose_guest_never_answers_does_not_keep_the_host_awake(tmp_path: Path) -> None:
    def wrap(driver: Embedded) -> Faulty:
        async def answers(uuid: str) -> None:
            await asyncio.Event().wait()

        return Faulty(driver, answers=answers)

    async def story(rig: Rig) -> None:
        await rig.core.power.start(rig.qube("dvm"))
        set_feature(rig.core, rig.qube("vault"), "qrexec", "1")
        starting = asyncio.create_task(rig.core.power.start(rig.qube("vault")))
        await rig.until("vault domain-unpaused")
        assert rig.state("vault") == "Transient"
        sleep = Sleep(rig.core, rig.core.power, rig.core.preloading, patience=0.1)
        with pytest.raises(QubesError, match="not suspended: 'vault': it was busy"):
            await sleep.begin()
        assert (rig.state("dvm"), rig.state("vault")) == ("Paused", "Transient")
        await sleep.end()
        assert rig.state("dvm") == "Running"
        await rig.core.power.kill(rig.qube("vault"))
        with pytest.raises(QubesError, match="stopped while it was starting"):
            await starting

    play(tmp_path, story, wrap)
