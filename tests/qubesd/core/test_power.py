"""The power verbs in every state, and the events that they bring."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qubesd.core.domain import interfaces
from qubesd.core.power_events import DomainPreShutdown, DomainPreStart, DomainShutdownFailed
from qubesd.errors import (
    QubeError,
    QubeInUse,
    QubeNotHalted,
    QubeNotPaused,
    QubeNotRunning,
    QubeNotStarted,
    QubesError,
    ShutdownTimeout,
)
from qubesd.virt.embedded import Embedded
from qubesd.virt.hypervisor import Domain, DomainChange, DomainState, Figures
from tests.qubesd.core.power_rig import START, STOP, Rig, faulty, of, play

DONE = None


async def bring(r: Rig, state: str) -> None:
    """Take ``vault`` to that state."""
    if state != "Halted":
        await r.core.power.start(r.qube("vault"))
    if state == "Paused":
        await r.core.power.pause(r.qube("vault"))
    assert r.state("vault") == state
    r.told()


@pytest.mark.parametrize(
    ("state", "verb", "error", "after", "events"),
    [
        ("Halted", "start", DONE, "Running", START),
        ("Halted", "shutdown", QubeNotStarted, "Halted", []),
        ("Halted", "kill", QubeNotStarted, "Halted", []),
        ("Halted", "pause", QubeNotRunning, "Halted", []),
        ("Halted", "unpause", QubeNotPaused, "Halted", []),
        ("Halted", "suspend", QubeNotRunning, "Halted", []),
        ("Halted", "resume", QubeNotPaused, "Halted", []),
        ("Running", "start", DONE, "Running", []),
        ("Running", "shutdown", DONE, "Halted", ["domain-pre-shutdown", *STOP]),
        ("Running", "kill", DONE, "Halted", STOP),
        ("Running", "pause", DONE, "Paused", ["domain-pre-paused", "domain-paused"]),
        ("Running", "unpause", QubeNotPaused, "Running", []),
        ("Running", "suspend", DONE, "Paused", ["domain-pre-paused", "domain-paused"]),
        ("Running", "resume", QubeNotPaused, "Running", []),
        ("Paused", "start", DONE, "Paused", []),
        ("Paused", "shutdown", QubeNotRunning, "Paused", ["domain-pre-shutdown", "domain-shutdown-failed"]),
        ("Paused", "kill", DONE, "Halted", STOP),
        ("Paused", "pause", DONE, "Paused", []),
        ("Paused", "unpause", DONE, "Running", ["domain-pre-unpaused", "domain-unpaused"]),
        ("Paused", "suspend", DONE, "Paused", []),
        ("Paused", "resume", DONE, "Running", ["domain-pre-unpaused", "domain-unpaused"]),
    ],
)
def test_verb(
    tmp_path: Path, state: str, verb: str, error: type[QubesError] | None, after: str, events: list[str]
) -> None:
    async def story(r: Rig) -> None:
        await bring(r, state)
        call = getattr(r.core.power, verb)(r.qube("vault"))
        if error is None:
            await call
        else:
            with pytest.raises(QubesError) as caught:
                await call
            assert type(caught.value) is error
        assert r.state("vault") == after
        assert r.told() == of("vault", events)

    play(tmp_path, story)


@pytest.mark.parametrize("state", ["Running", "Paused"])
def test_shutdown_by_force(tmp_path: Path, state: str) -> None:
    async def story(r: Rig) -> None:
        await bring(r, state)
        await r.core.power.shutdown(r.qube("vault"), force=True, wait=True)
        assert r.told() == of("vault", ["domain-pre-shutdown", *STOP])
        assert [event.force for event in r.events if isinstance(event, DomainPreShutdown)] == [True]

    play(tmp_path, story)


@pytest.mark.parametrize("name", ["dom0", "far"])
def test_what_is_not_ours_to_switch(tmp_path: Path, name: str) -> None:
    async def story(r: Rig) -> None:
        power, qube = r.core.power, r.qube(name)
        for verb in (power.shutdown, power.kill, power.pause, power.unpause, power.suspend, power.resume):
            with pytest.raises(QubeError) as caught:
                await verb(qube)
            assert type(caught.value) is QubeError
        with pytest.raises(QubeNotHalted):
            await power.start(qube)
        assert r.state(name) == "Running"
        assert r.told() == []

    play(tmp_path, story)


def test_netvms_come_first(tmp_path: Path) -> None:
    begin, spawn = START[:2], START[2:]

    async def story(r: Rig) -> None:
        await r.core.power.start(r.qube("work"))
        assert r.told() == [
            *of("work", begin),
            *of("sys-firewall", begin),
            *of("sys-net", START),
            *of("sys-firewall", spawn),
            *of("work", spawn),
        ]
        await r.core.power.kill(r.qube("work"))
        r.told()
        await r.core.power.start(r.qube("work"))
        assert r.told() == of("work", START)

    play(tmp_path, story)


def test_a_start_says_what_memory_it_needs(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        r.change("vault", memory=500)
        await r.core.power.start(r.qube("vault"))
        told = [event.keys() for event in r.events if isinstance(event, DomainPreStart)]
        assert told == [(("start_guid", "True"), ("mem_required", str(500 * 1024 * 1024)))]

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("role", "error"), [("netvm", QubeInUse), ("audiovm", QubeInUse), ("guivm", QubeError)]
)
def test_a_qube_that_another_uses_does_not_shut_down(
    tmp_path: Path, role: str, error: type[QubesError]
) -> None:
    async def story(r: Rig) -> None:
        provider = "sys-net" if role == "netvm" else "vault"
        r.change("dvm", **{role: provider})
        await r.core.power.start(r.qube(provider))
        await r.core.power.start(r.qube("dvm"))
        r.told()
        with pytest.raises(QubesError) as caught:
            await r.core.power.shutdown(r.qube(provider))
        assert type(caught.value) is error
        assert "dvm" not in str(caught.value), "who uses it is nobody else's business"
        assert r.told() == of(provider, ["domain-pre-shutdown", "domain-shutdown-failed"])
        failures = [event.reason for event in r.events if isinstance(event, DomainShutdownFailed)]
        assert failures == [str(caught.value)]
        assert r.state(provider) == "Running"
        await r.core.power.shutdown(r.qube(provider), force=True)
        assert r.state(provider) == "Halted"

    play(tmp_path, story)


def test_a_halted_user_is_none(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        r.change("dvm", guivm="vault", audiovm="vault")
        r.change("vault", guivm="vault")
        await r.core.power.start(r.qube("vault"))
        await r.core.power.shutdown(r.qube("vault"), wait=True)
        assert r.state("vault") == "Halted"

    play(tmp_path, story)


def test_figures(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        power = r.core.power
        assert await power.figures(r.qube("vault")) == Figures()
        await power.start(r.qube("vault"))
        figures = await power.figures(r.qube("vault"))
        assert (figures.memory, figures.memory_limit) == (400 * 1024, 400 * 1024)
        assert figures.cpu_time > 0
        await power.kill(r.qube("vault"))
        assert await power.figures(r.qube("vault")) == Figures()
        assert await power.figures(r.qube("far")) == Figures()
        assert (await power.figures(r.qube("dom0"))).memory > 0

    play(tmp_path, story)


def test_each_run_has_its_own_number(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        numbers = []
        for _ in range(3):
            await r.core.power.start(r.qube("vault"))
            numbers.append(r.core.running("vault").xid)
            await r.core.power.kill(r.qube("vault"))
            assert r.core.running("vault").xid == -1
        assert len(set(numbers)) == 3

    play(tmp_path, story)


def test_a_netvm_that_goes_takes_its_interfaces_and_brings_them_back(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        power, hypervisor, work = r.core.power, r.core.hypervisor, r.qube("work")
        await power.start(work)
        [uplink] = interfaces(r.core, work)
        with pytest.raises(QubesError, match="already"):
            await hypervisor.attach(work.uuid, uplink)
        await power.shutdown(r.qube("sys-firewall"), force=True)
        await hypervisor.attach(work.uuid, uplink)
        await hypervisor.detach(work.uuid, uplink.mac)
        await power.start(r.qube("sys-firewall"))
        with pytest.raises(QubesError, match="already"):
            await hypervisor.attach(work.uuid, uplink)

    play(tmp_path, story)


@pytest.mark.parametrize("how", ["kill", "shutdown"])
def test_a_disposable_goes_with_its_run(tmp_path: Path, how: str) -> None:
    async def story(r: Rig) -> None:
        disp = r.qube("disp7")
        await r.core.power.start(disp)
        r.told()
        await getattr(r.core.power, how)(disp)
        first = [] if how == "kill" else ["domain-pre-shutdown"]
        assert r.told() == [*of("disp7", [*first, *STOP]), "domain-pre-delete", "domain-delete"]
        assert "disp7" not in r.core.system.qubes
        assert disp.uuid not in await r.core.hypervisor.domains()

    play(tmp_path, story)


def test_a_named_disposable_stays(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        r.change("disp7", auto_cleanup=False)
        await r.core.power.start(r.qube("disp7"))
        await r.core.power.kill(r.qube("disp7"))
        assert r.state("disp7") == "Halted"
        assert "domain-delete" not in r.told()

    play(tmp_path, story)


def test_a_disposable_that_is_in_use_stays_halted(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        r.change("vault", guivm="disp7")
        await r.core.power.start(r.qube("disp7"))
        await r.core.power.kill(r.qube("disp7"))
        assert r.state("disp7") == "Halted"
        await r.core.power.start(r.qube("disp7"))
        assert r.state("disp7") == "Running"

    play(tmp_path, story)


def test_a_caller_that_goes_does_not_stop_what_it_began(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        call = asyncio.ensure_future(r.core.power.start(r.qube("work")))
        await r.until("work domain-pre-start")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await r.until("work domain-start")
        assert r.state("work") == "Running"

    play(tmp_path, story)


async def deaf(uuid: str) -> DomainState:
    return DomainState.RUNNING


def test_a_guest_that_does_not_shut_down(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        r.change("vault", shutdown_timeout=1)
        await bring(r, "Running")
        await r.core.power.shutdown(r.qube("vault"))
        assert r.told() == ["vault domain-pre-shutdown"]
        with pytest.raises(ShutdownTimeout, match="within 1 seconds"):
            await r.core.power.shutdown(r.qube("vault"), wait=True)
        assert r.told() == of("vault", ["domain-pre-shutdown", "domain-shutdown-failed"])
        assert r.state("vault") == "Running"
        waiting = asyncio.ensure_future(r.core.power.shutdown(r.qube("vault"), wait=True))
        await r.until("vault domain-pre-shutdown")
        r.domain("vault").shutdown()
        await waiting
        assert r.state("vault") == "Halted"

    play(tmp_path, story, faulty(shutdown=deaf))


class Sleeper:
    """The embedded hypervisor with a guest that sleeps, told as a hypervisor with such guests tells it."""

    def __init__(self, driver: Embedded) -> None:
        self._driver = driver
        self._changed: Callable[[DomainChange], None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def open(self, changed: Callable[[DomainChange], None], reconnected: Callable[[], None]) -> None:
        self._changed = changed
        await self._driver.open(changed, reconnected)

    async def suspend(self, uuid: str) -> None:
        self._changed(DomainChange(uuid, Domain(DomainState.SUSPENDED, 1)))

    async def wake(self, uuid: str) -> None:
        self._changed(DomainChange(uuid, Domain(DomainState.RUNNING, 1)))


def test_a_guest_that_sleeps(tmp_path: Path) -> None:
    def sleeping(driver: Embedded) -> Any:
        return Sleeper(driver)

    async def story(r: Rig) -> None:
        power, vault = r.core.power, r.qube("vault")
        await bring(r, "Running")
        await power.suspend(vault)
        assert r.state("vault") == "Suspended"
        await power.suspend(vault)
        assert r.told() == []
        for verb, error in ((power.unpause, QubeNotPaused), (power.pause, QubeNotRunning)):
            with pytest.raises(error):
                await verb(vault)
        with pytest.raises(QubeNotRunning):
            await power.shutdown(vault)
        r.told()
        await power.resume(vault)
        assert r.state("vault") == "Running"
        assert r.told() == ["vault domain-resumed"]
        await power.suspend(vault)
        await power.shutdown(vault, force=True)
        assert r.told() == of("vault", ["domain-pre-shutdown", *STOP])

    play(tmp_path, story, sleeping)
