"""What happens to domains without the core: it follows, and tells of it as of what it did itself."""

import asyncio
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from qubesd.core.budgets import Allowance
from qubesd.core.usage import Use
from qubesd.errors import HypervisorLost, NoSuchQube, OverLimit, QubeNotStarted, StoreError
from qubesd.model.owner import OWNER
from qubesd.model.state import Assignment
from tests.qubesd.core.power_rig import RESETS, START, STOP, Rig, of, play, rig
from tests.qubesd.core.test_devices import announce
from tests.qubesd.virt.distant import distant, needs_libvirtd


def test_paused_and_unpaused(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        await r.core.power.start(r.qube("vault"))
        r.told()
        r.domain("vault").suspend()
        await r.until("vault domain-paused")
        assert r.state("vault") == "Paused"
        r.domain("vault").resume()
        await r.until("vault domain-unpaused")
        assert r.state("vault") == "Running"
        assert r.told() == of("vault", ["domain-paused", "domain-unpaused"])

    play(tmp_path, story)


@pytest.mark.parametrize("how", ["shutdown", "destroy", "crash"])
def test_stopped(tmp_path: Path, how: str) -> None:
    async def story(r: Rig) -> None:
        await r.core.power.start(r.qube("vault"))
        r.told()
        if how == "crash":
            r.domain("vault").coreDump(str(tmp_path / "core"), libvirt.VIR_DUMP_CRASH)
        else:
            getattr(r.domain("vault"), how)()
        await r.until("vault domain-shutdown")
        assert r.state("vault") == "Halted"
        assert r.told() == of("vault", STOP)
        with pytest.raises(QubeNotStarted):
            await r.core.power.kill(r.qube("vault"))

    play(tmp_path, story)


def test_a_stop_is_dealt_with_before_the_next_start(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        await r.core.power.start(r.qube("vault"))
        r.told()
        r.domain("vault").destroy()
        while r.state("vault") == "Running":
            await asyncio.sleep(0)
        assert r.state("vault") == "Dying"
        await r.core.power.start(r.qube("vault"))
        assert r.told() == of("vault", [*STOP, *START])

    play(tmp_path, story)


def test_started(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        await r.core.power.start(r.qube("vault"))
        await r.core.power.kill(r.qube("vault"))
        r.told()
        r.domain("vault").create()
        await r.until(f"vault {RESETS[-1]}")
        assert r.state("vault") == "Running"
        assert r.core.running("vault").xid == r.domain("vault").ID()
        await r.core.power.shutdown(r.qube("vault"), wait=True)
        assert r.told() == of("vault", [*RESETS, "domain-pre-shutdown", *STOP])

    play(tmp_path, story)


def test_what_was_started_counts_for_its_owner(tmp_path: Path) -> None:
    """It cannot be refused, but nothing more starts beside it."""

    async def story(r: Rig) -> None:
        owner = r.qube("far").uuid
        for name in ("vault", "dvm"):
            r.put(r.qube(name).with_feature(OWNER, owner))
        await r.core.power.start(r.qube("vault"))
        await r.core.power.kill(r.qube("vault"))
        assert r.core.budgets.used(owner).running == 0
        r.core.budgets.allowance_of = lambda _: Allowance(running=1)
        r.told()
        r.domain("vault").create()
        await r.until(f"vault {RESETS[-1]}")
        assert r.core.budgets.used(owner) == Use(qubes=2, running=1, memory=400 << 20)
        with pytest.raises(OverLimit):
            await r.core.power.start(r.qube("dvm"))
        r.domain("vault").destroy()
        await r.until("vault domain-shutdown")
        await r.core.power.start(r.qube("dvm"))

    play(tmp_path, story)


def test_stopped_and_started_in_one_breath(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        await r.core.power.start(r.qube("vault"))
        r.told()
        r.domain("vault").destroy()
        r.domain("vault").create()
        await r.until("vault domain-shutdown")
        while r.state("vault") != "Running":
            await asyncio.sleep(0.001)
        assert r.core.running("vault").xid == r.domain("vault").ID()
        told = r.told()
        # Whether the new domain comes before the old one's stop is dealt with is chance.
        early = [*STOP[:-1], *RESETS, STOP[-1]]
        assert told in [of("vault", story) for story in (STOP, [*STOP, *RESETS], early)]
        await r.core.power.shutdown(r.qube("vault"), wait=True)
        assert r.told() == of("vault", ["domain-pre-shutdown", *STOP])

    play(tmp_path, story)


def test_a_disposable_that_stops_by_itself_goes(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        disp = r.qube("disp7")
        await r.core.power.start(disp)
        r.domain("disp7").shutdown()
        await r.until("domain-delete")
        with pytest.raises(NoSuchQube):
            await r.core.power.start(disp)

    play(tmp_path, story)


def test_domains_that_are_no_qubes_are_left_alone(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        description = (
            "<domain type='test'><name>foreign</name><memory>1024</memory><os><type>hvm</type></os></domain>"
        )
        foreign = r.outside.createXML(description)
        foreign.suspend()
        await r.core.power.start(r.qube("vault"))
        await r.core.power.kill(r.qube("vault"))
        assert r.told() == of("vault", [*START, *STOP])
        assert foreign.isActive()

    play(tmp_path, story)


def test_what_runs_already_is_known_after_a_restart(tmp_path: Path) -> None:
    """``test:///default`` is one hypervisor for the process as long as somebody holds it."""

    async def story() -> None:
        outside = libvirt.open("test:///default")
        try:
            async with rig(tmp_path, uri="test:///default") as first:
                await first.core.power.start(first.qube("work"))
                await first.core.power.pause(first.qube("sys-net"))
                number = first.core.running("work").xid
            async with rig(tmp_path, uri="test:///default") as second:
                assert second.core.running("work").xid == number
                states = {name: second.state(name) for name in ("work", "sys-firewall", "sys-net", "vault")}
                assert states == {
                    "work": "Running",
                    "sys-firewall": "Running",
                    "sys-net": "Paused",
                    "vault": "Halted",
                }
                second.told()
                for name in ("work", "sys-firewall", "sys-net"):
                    await second.core.power.kill(second.qube(name))
                    assert second.told() == of(name, STOP)
                    await second.core.power.lives.forget(second.qube(name))
        finally:
            outside.close()

    asyncio.run(story())


@pytest.mark.parametrize("announced", [True, False])
def test_what_is_plugged_in_is_known_after_a_restart(tmp_path: Path, announced: bool) -> None:
    """A disk that the start of the first daemon put in, though its backend may not announce it any more."""
    wish = Assignment("block", "sys-net", "sda", "sda:None")

    async def story() -> None:
        outside = libvirt.open("test:///default")
        folder = announce(tmp_path, "sda")
        try:
            async with rig(tmp_path, uri="test:///default") as first:
                await first.core.power.start(first.qube("sys-net"))
                first.put(replace(first.qube("vault"), assignments=(wish,)))
                await first.core.durable()
                await first.core.power.start(first.qube("vault"))
                before = first.core.devices.attached(first.qube("vault"), "block")
                assert [(one.assignment, one.disk) for one in before] == [(wish, before[0].disk)]
            if not announced:
                shutil.rmtree(folder)
            async with rig(tmp_path, uri="test:///default") as second:
                devices = second.core.devices
                (found,) = devices.attached(second.qube("vault"), "block")
                assert found.disk == before[0].disk
                assert devices.holder(before[0].device) == "vault"
                if announced:
                    assert found == before[0]
                else:
                    assert found.device.identity == "0000:0000::?******"
                await second.core.device_lists.look(second.qube("sys-net"))
                assert [line for line in second.told() if "device" in line] == []
                await second.core.power.kill(second.qube("vault"))
                assert second.told()[:2] == ["vault device-detach:block", "vault domain-stopped"]
                assert devices.holder(before[0].device) is None
                await second.core.power.kill(second.qube("sys-net"))
                for name in ("vault", "sys-net"):
                    await second.core.power.lives.forget(second.qube(name))
        finally:
            outside.close()

    asyncio.run(story())


def test_what_stopped_between_two_daemons_is_dealt_with_once(tmp_path: Path) -> None:
    """The second core has a hypervisor of its own, in which nothing runs."""

    async def story() -> None:
        async with rig(tmp_path) as first:
            await first.core.power.start(first.qube("disp7"))
            await first.core.power.start(first.qube("vault"))
        async with rig(tmp_path) as second:
            await second.until("vault domain-shutdown")
            await second.until("domain-delete")
            told = second.told()
            assert [line for line in told if line.startswith("vault")] == of("vault", STOP)
            assert [line for line in told if line.startswith("disp7")] == of("disp7", STOP)
        async with rig(tmp_path) as third:
            await third.core.power.start(third.qube("sys-net"))
            assert third.told() == of("sys-net", START)
            assert "disp7" not in third.core.system.qubes

    asyncio.run(story())


KILLED = """
import asyncio, os, sys
from pathlib import Path
from tests.qubesd.core.power_rig import rig

async def story():
    async with rig(Path(sys.argv[1])) as r:
        await r.core.power.start(r.qube("disp7"))
        os.kill(os.getpid(), 9)

asyncio.run(story())
"""


def test_what_ran_when_the_daemon_was_killed_is_dealt_with(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parents[3], check=False
    )
    assert killed.returncode == -9

    async def story(r: Rig) -> None:
        await r.until("domain-delete")
        assert of("disp7", STOP) == [line for line in r.told() if line.startswith("disp7")]

    play(tmp_path, story)


def test_what_a_failed_write_takes_back_does_not_go_on_running(tmp_path: Path) -> None:
    async def story() -> None:
        async with rig(tmp_path) as r:
            vault = r.qube("vault")
            new = type(vault)(
                "new", 99, "6d2a1ef0-9b5d-4a5c-8b8e-0123456789ff", vault.klass, vault.properties
            )
            r.put(new)
            await r.core.power.start(new)
            store = tmp_path / "var/lib/qubes/qubes.xml"
            store.write_bytes(store.read_bytes() + b"\n")  # by another hand: the core will not write over it
            with pytest.raises(StoreError):
                await r.core.durable()
            assert "new" not in r.core.system.qubes
            assert r.state("new") == "Halted"
            async with asyncio.timeout(10):
                while await r.core.hypervisor.domains():
                    await asyncio.sleep(0.001)

    asyncio.run(story())


def test_the_end_of_the_daemon_lets_a_start_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with rig(tmp_path) as r:
            start = asyncio.ensure_future(r.core.power.start(r.qube("work")))
            await r.until("work domain-pre-start")
        await start
        assert r.told()[-1] == "work domain-start"

    asyncio.run(story())


@needs_libvirtd
def test_a_hypervisor_that_is_lost_and_comes_back_empty(tmp_path: Path) -> None:
    async def story() -> None:
        with distant() as libvirtd:
            await libvirtd.bring()
            async with rig(tmp_path, uri=libvirtd.uri) as r:
                await r.core.power.start(r.qube("vault"))
                await r.core.power.start(r.qube("disp7"))
                r.told()
                libvirtd.take_away()
                with pytest.raises(HypervisorLost):
                    await r.core.power.pause(r.qube("vault"))
                assert r.state("vault") == "Running"
                with pytest.raises(HypervisorLost):
                    await r.core.power.start(r.qube("sys-net"))
                assert r.told()[-1] == "sys-net domain-start-failed"
                assert r.state("sys-net") == "Halted"
                await libvirtd.bring()
                await r.until("vault domain-shutdown")
                await r.until("domain-delete")
                assert [line for line in r.told() if line.startswith("vault")] == of("vault", STOP)
                await r.core.power.start(r.qube("vault"))
                assert r.told() == of("vault", START)

    asyncio.run(story())


@needs_libvirtd
def test_a_domain_that_is_another_one_after_the_loss(tmp_path: Path) -> None:
    async def story() -> None:
        with distant() as libvirtd:
            await libvirtd.bring()
            async with rig(tmp_path, uri=libvirtd.uri) as r:
                await r.core.power.start(r.qube("vault"))
                r.told()
                description = r.domain("vault").XMLDesc()
                number = r.core.running("vault").xid
                libvirtd.take_away()
                await libvirtd.bring()
                outside = libvirt.open(libvirtd.uri)
                other = description.replace(r.qube("vault").uuid, r.qube("dvm").uuid).replace("vault", "dvm")
                outside.defineXML(other).create()
                outside.defineXML(description).create()
                async with asyncio.timeout(10):
                    while r.core.running("vault").xid in (-1, number):
                        await asyncio.sleep(0.001)
                await r.until("vault domain-shutdown")
                assert r.told().count("vault domain-stopped") == 1
                assert r.state("vault") == r.state("dvm") == "Running"
                outside.close()

    asyncio.run(story())
