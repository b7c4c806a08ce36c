"""Disposables made ahead: who gets one, what it is then, and that no queue holds what it should not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qubesd.events import Event, QubeAdded
from qubesd.extension import Change, Extension, on
from qubesd.model.state import Klass, Qube
from tests.qubesd.house import House, visit

Guest = Callable[[House], Awaitable[None]]

NEEDED = ("qrexec", "supported-rpc.qubes.WaitForRunningSystem", "supported-rpc.qubes.WaitForSession")


def queue(house: House, template: str = "web-dvm") -> list[str]:
    return house.qube(template).features.get("preload-dispvm", "").split()


def disposables(house: House) -> set[str]:
    return {qube.name for qube in house.core.system.qubes.values() if qube.klass is Klass.DISPOSABLE}


def is_full(house: House, number: int) -> bool:
    names = queue(house)
    ready = all(house.qube(name).features.get("preload-dispvm-completed") for name in names)
    return len(names) == number and ready and disposables(house) >= set(names)


def marks(qube: Qube) -> set[str]:
    """The features that only one that waits has."""
    return {feature for feature in qube.features if feature.startswith(("internal", "preload"))}


async def until(house: House, so: Callable[[], bool]) -> None:
    """Wait for events until something is so."""
    changed = asyncio.Event()
    stop = house.core.bus.subscribe(Event, lambda _: changed.set())
    try:
        async with asyncio.timeout(20):
            while not so():
                changed.clear()
                await changed.wait()
    finally:
        stop()


async def make_one_that_never_answers(house: House) -> None:
    """Have one made ahead whose guest runs and says nothing."""

    async def never(uuid: str) -> None:
        await asyncio.Event().wait()

    await ask(house, 0)
    house.core.hypervisor.answers = never  # type: ignore[method-assign]
    await house.do("admin.vm.feature.Set", "web-dvm", "preload-dispvm-max", "1")
    await until(house, lambda: any(name.endswith("domain-unpaused") for name in house.names()))


async def ask(house: House, number: int, delay: str = "0") -> None:
    """Have so many wait, and wait for them."""
    for feature in NEEDED:
        await house.do("admin.vm.feature.Set", "debian-13", feature, "1")
    await house.do("admin.vm.feature.Set", "web-dvm", "preload-dispvm-delay", delay)
    await house.do("admin.vm.feature.Set", "web-dvm", "preload-dispvm-max", str(number))
    await until(house, lambda: is_full(house, number))


async def take(house: House, caller: str = "work") -> Qube:
    return house.qube(await house.call("admin.vm.CreateDisposable", "web-dvm", caller=caller))


def scene(
    number: int, delay: str = "0"
) -> Callable[[Callable[[House], Awaitable[None]]], Callable[[Path], None]]:
    """A test in a house where so many wait."""

    def around(guest: Guest) -> Callable[[Path], None]:
        async def prepared(house: House) -> None:
            await ask(house, number, delay)
            await guest(house)

        def test(tmp_path: Path) -> None:
            visit(tmp_path, prepared)

        return test

    return around


@scene(2)
async def test_as_many_as_asked_for_wait_paused_and_are_nobodys(house: House) -> None:
    assert disposables(house) == set(queue(house))
    for name in queue(house):
        qube = house.qube(name)
        assert house.core.running(name).state == "Paused"
        assert qube.features["internal"] == "1"
        assert "preload-dispvm-in-progress" not in qube.features
        assert qube.tags == house.qube("web-dvm").tags
        assert await house.call("admin.vm.property.Get", name, "is_preload") == "default=True type=bool True"


@scene(1, delay="1000")
async def test_whoever_asks_gets_the_oldest_as_a_new_one_of_his(house: House) -> None:
    (waited,) = queue(house)
    house.told.clear()
    qube = await take(house)
    assert qube.name == waited
    assert house.core.running(waited).state == "Running"
    assert {"created-by-work", "disp-created-by-work"} <= qube.tags
    assert not marks(qube)
    names = house.names()
    order = [
        "web-dvm domain-feature-set:preload-dispvm",
        f"{waited} property-reset:is_preload",
        f"{waited} domain-tag-add:created-by-work",
        f"{waited} domain-pre-unpaused",
        f"{waited} domain-unpaused",
        f"{waited} domain-feature-delete:internal",
        "web-dvm domain-preload-dispvm-used",
    ]
    assert [name for name in names if name in order] == order
    # The next is made only after the delay, and meanwhile a new one is halted, as ever.
    fresh = await take(house)
    assert fresh.name != waited
    assert house.core.running(fresh.name).state == "Halted"


@scene(2)
async def test_two_who_ask_at_once_never_get_the_same(house: House) -> None:
    taken = await asyncio.gather(*(take(house, caller) for caller in ("work", "sys-net", "work", "sys-net")))
    assert len({qube.name for qube in taken}) == 4
    for qube, caller in zip(taken, ("work", "sys-net") * 2, strict=True):
        assert qube.tags - house.qube("web-dvm").tags == {
            f"created-by-{caller}",
            f"disp-created-by-{caller}",
        }
    await until(house, lambda: is_full(house, 2))
    assert not set(queue(house)) & {qube.name for qube in taken}


CHANGES = {
    "property": ("admin.vm.property.Set", "web-dvm", "memory", "555"),
    "feature": ("admin.vm.feature.Set", "web-dvm", "menu-items", "new"),
    "tag": ("admin.vm.tag.Set", "web-dvm", "team"),
    "firewall": ("admin.vm.firewall.Set", "web-dvm", "", "action=drop\n"),
    "label": ("admin.vm.property.Set", "web-dvm", "label", "green"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_template_was_before_is_not_handed_out(change: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await ask(house, 2, "1000")
        old = set(queue(house))
        await house.do(*CHANGES[change])
        assert (await take(house)).name not in old
        await until(house, lambda: not old & disposables(house))

    visit(tmp_path, guest)


@scene(1, delay="1000")
async def test_one_of_an_internal_template_stays_internal(house: House) -> None:
    await house.do("admin.vm.feature.Set", "web-dvm", "internal", "1")
    (waited,) = queue(house)
    qube = await take(house)
    assert qube.name == waited
    assert marks(qube) == {"internal"}


@scene(1)
async def test_what_its_guest_announces_does_not_spoil_it(house: House) -> None:
    (waited,) = queue(house)
    announced = house.core.config.run_dir / "qubesdb" / waited / "features-request"
    announced.mkdir(parents=True, exist_ok=True)
    (announced / "supported-rpc.qubes.New").write_text("1")
    await house.do("qubes.FeaturesRequest", caller=waited)
    qube = await take(house)
    assert qube.name == waited
    assert qube.features["supported-rpc.qubes.New"] == "1"


def test_what_an_extension_gives_every_new_one_does_not_spoil_it(tmp_path: Path) -> None:
    def mark(change: Change, event: QubeAdded) -> None:
        if change.system.qubes[event.qube].klass is Klass.DISPOSABLE:
            change.set_feature(event.qube, "made-here", "1")

    async def guest(house: House) -> None:
        await ask(house, 1)
        (waited,) = queue(house)
        qube = await take(house)
        assert qube.name == waited
        assert qube.features["made-here"] == "1"

    visit(tmp_path, guest, extensions={"mark": Extension(reactions=(on(QubeAdded, mark),))})


TAMPERED = {
    "tag": ("admin.vm.tag.Set", "managed-by-mallory"),
    "feature": ("admin.vm.feature.Set", "tag-created-vm-with", "shared"),
    "property": ("admin.vm.property.Set", "autostart", "True"),
    "netvm": ("admin.vm.property.Set", "netvm", ""),
    "firewall": ("admin.vm.firewall.Set", "", "action=drop\n"),
    "assignment": ("admin.vm.device.block.Assign", "sys-net+sda", "mode='auto-attach'"),
    "device": ("admin.vm.device.mic.Attach", "dom0+mic"),
    "denied": ("admin.vm.device.denied.Add", "", "u******"),
}


@pytest.mark.parametrize("change", TAMPERED)
def test_what_somebody_did_to_one_that_waits_comes_with_none(change: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await ask(house, 1)
        (waited,) = queue(house)
        service, *words = TAMPERED[change]
        await house.do(service, waited, *words)
        assert (await take(house)).name != waited
        await until(house, lambda: waited not in disposables(house))

    visit(tmp_path, guest)


@scene(1)
async def test_what_was_written_to_a_template_replaces_those_that_wait(house: House) -> None:
    (old,) = queue(house)
    for step in ("Start", "Kill"):
        await house.do(f"admin.vm.{step}", "debian-13")
    await until(house, lambda: is_full(house, 1) and queue(house) != [old])
    assert old not in house.core.system.qubes


@scene(2)
async def test_fewer_are_asked_for(house: House) -> None:
    first = queue(house)[0]
    await house.do("admin.vm.feature.Set", "web-dvm", "preload-dispvm-max", "1")
    await until(house, lambda: queue(house) == [first])
    await until(house, lambda: disposables(house) == {first})
    await house.do("admin.vm.feature.Remove", "web-dvm", "preload-dispvm-max")
    await until(house, lambda: not queue(house) and not disposables(house))


@scene(1)
async def test_dom0s_number_goes_for_the_default(house: House) -> None:
    await house.do("admin.property.Set", "dom0", "default_dispvm", "web-dvm")
    await house.do("admin.vm.feature.Set", "dom0", "preload-dispvm-max", "3")
    await until(house, lambda: is_full(house, 3))
    await house.do("admin.property.Reset", "dom0", "default_dispvm")
    await until(house, lambda: is_full(house, 1))


@scene(1)
async def test_one_that_is_unpaused_by_hand_is_used(house: House) -> None:
    (name,) = queue(house)
    await house.do("admin.vm.Unpause", name)
    await until(house, lambda: is_full(house, 1) and queue(house) != [name])
    assert not {
        feature for feature in house.qube(name).features if feature.startswith(("internal", "preload"))
    }


@scene(1)
async def test_one_that_is_killed_is_gone_and_replaced(house: House) -> None:
    (name,) = queue(house)
    await house.do("admin.vm.Kill", name)
    await until(house, lambda: is_full(house, 1) and queue(house) != [name])
    assert name not in house.core.system.qubes


@scene(2)
async def test_those_that_wait_do_not_keep_their_template(house: House) -> None:
    await house.do("admin.property.Set", "dom0", "default_dispvm", "web-dvm")
    assert await house.call("admin.vm.Remove", "web-dvm") == "QubesVMInUseError"
    assert len(queue(house)) == 2
    await house.do("admin.property.Set", "dom0", "default_dispvm", "")
    await house.do("admin.vm.Remove", "web-dvm")
    assert not disposables(house)


def test_one_whose_guest_never_answers_does_not_keep_the_template(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await make_one_that_never_answers(house)
        async with asyncio.timeout(20):
            await house.do("admin.vm.Remove", "web-dvm")
        assert disposables(house) == set()

    visit(tmp_path, guest)


@scene(0)
async def test_memory_that_is_to_stay_free_stays(house: House) -> None:
    await house.do("admin.vm.feature.Set", "dom0", "preload-dispvm-threshold", "1000000")
    await house.do("admin.vm.feature.Set", "web-dvm", "preload-dispvm-max", "1")
    await house.do("admin.vm.CreateDisposable", "web-dvm", "preload")
    await asyncio.sleep(0.3)
    assert not disposables(house)
    await house.do("admin.vm.feature.Set", "dom0", "preload-dispvm-threshold", "1")
    await until(house, lambda: is_full(house, 1))


@scene(0)
async def test_one_that_does_not_start_leaves_nothing(house: House) -> None:
    await house.do("admin.vm.feature.Set", "web-dvm", "prohibit-start", "not today")
    await house.do("admin.vm.feature.Set", "web-dvm", "preload-dispvm-max", "1")
    failed: list[str] = []
    house.core.bus.subscribe(Event, lambda event: failed.append(getattr(event, "kind", "")))
    await until(house, lambda: "domain-delete" in failed)
    await until(house, lambda: not queue(house))
    await asyncio.sleep(0.3)  # and it is not tried again and again
    assert failed.count("domain-start-failed") == 1
    assert not disposables(house)
    assert not list(house.core.config.qubes_dir.glob("appvms/disp*"))
    await house.do("admin.vm.feature.Remove", "web-dvm", "prohibit-start")
    await house.do("admin.vm.CreateDisposable", "web-dvm", "preload")
    await until(house, lambda: is_full(house, 1))


def test_what_waited_when_the_daemon_ended_is_made_anew(tmp_path: Path) -> None:
    left: list[str] = []

    async def before(house: House) -> None:
        await ask(house, 2)
        left.extend(queue(house))

    async def after(house: House) -> None:
        await until(house, lambda: is_full(house, 2) and not set(left) & disposables(house))

    visit(tmp_path, before)
    visit(tmp_path, after, furnished=False)


def test_a_queue_from_elsewhere_costs_no_other_qube_its_life(tmp_path: Path) -> None:
    """A qubes.xml, as a backup may bring it, whose queue names others."""

    async def before(house: House) -> None:
        await house.do("admin.vm.feature.Set", "web-dvm", "gui", "work gone dom0 web-dvm")

    async def after(house: House) -> None:
        assert queue(house) == ["work", "gone", "dom0", "web-dvm"]
        await house.do("admin.vm.Start", "work")
        await house.do("admin.vm.CreateDisposable", "web-dvm", "preload")
        await until(house, lambda: queue(house) == [])
        assert house.core.running("work").state == "Running"
        assert disposables(house) == set()

    visit(tmp_path, before)
    store = tmp_path / "var/lib/qubes/qubes.xml"
    store.write_text(store.read_text().replace('"gui"', '"preload-dispvm"'))
    visit(tmp_path, after, furnished=False)
