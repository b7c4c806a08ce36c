"""The embedded hypervisor against the real libvirt test driver, one private copy of it for each test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
import pytest

from qubesd.errors import HypervisorLost, NotSupported, QubeNotStarted, QubesError
from qubesd.model.state import DOM0_UUID
from qubesd.virt.drivers import make
from qubesd.virt.embedded import Embedded
from qubesd.virt.hypervisor import Domain, DomainChange, DomainSpec, DomainState, Figures, Interface

OFF, RUNNING, PAUSED = DomainState.OFF, DomainState.RUNNING, DomainState.PAUSED

UUID = "6d2a1ef0-9b5d-4a5c-8b8e-0123456789ab"
OTHER = "6d2a1ef0-9b5d-4a5c-8b8e-0123456789ac"
UPLINK = Interface("00:16:3e:5e:6c:00", "10.137.0.4", "sys-net")
SPEC = DomainSpec(
    name="work", uuid=UUID, virt_mode="pvh", memory=400, maxmem=1000, vcpus=2, interfaces=(UPLINK,)
)


@dataclass
class Bench:
    """A driver, what it told, and libvirt's own handle on its connection: a hand from outside."""

    driver: Embedded
    handle: Any
    news: list[DomainChange] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self, change: DomainChange) -> None:
        self.news.append(change)
        self.came.set()

    async def states(self, count: int) -> list[DomainState]:
        """The states of the first ``count`` news, once there are that many."""
        async with asyncio.timeout(10):
            while len(self.news) < count:
                self.came.clear()
                await self.came.wait()
        return [change.domain.state for change in self.news]


@asynccontextmanager
async def bench(tmp_path: Path, node: str = "<node/>") -> AsyncIterator[Bench]:
    file = tmp_path / "node.xml"
    file.write_text(node)
    handles: list[Any] = []

    def connect(uri: str) -> Any:
        handles.append(libvirt.open(uri))
        return handles[-1]

    driver = Embedded(f"test://{file}", connect)
    made = Bench(driver, None)
    await driver.open(made.changed, lambda: None)
    made.handle = handles[0]
    try:
        yield made
    finally:
        await driver.close()


Story = Callable[[Bench], Awaitable[None]]


def play(tmp_path: Path, story: Story, node: str = "<node/>") -> None:
    async def whole() -> None:
        async with bench(tmp_path, node) as made:
            await story(made)

    asyncio.run(whole())


def test_a_life_with_its_news(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        made = await b.driver.create(SPEC)
        assert made.state is PAUSED
        assert made.xid > 0
        assert await b.driver.domains() == {UUID: Domain(PAUSED, made.xid)}
        await b.driver.unpause(UUID)
        await b.driver.pause(UUID)
        await b.driver.unpause(UUID)
        assert await b.driver.shutdown(UUID) is OFF
        assert await b.states(6) == [RUNNING, PAUSED, RUNNING, PAUSED, RUNNING, OFF]
        assert {change.uuid for change in b.news} == {UUID}
        assert [change.domain.xid for change in b.news] == [made.xid] * 5 + [-1]
        await b.driver.forget(UUID)
        assert await b.driver.domains() == {}

    play(tmp_path, story)


def test_a_domain_is_made_of_what_was_asked(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        await b.driver.create(SPEC)
        description = b.handle.lookupByUUIDString(UUID).XMLDesc()
        assert "<name>work</name>" in description
        assert "<memory unit='KiB'>1024000</memory>" in description
        assert "<currentMemory unit='KiB'>409600</currentMemory>" in description
        assert "<backenddomain name='sys-net'/>" in description

    play(tmp_path, story)


def test_news_from_outside(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        await b.driver.create(SPEC)
        outside = b.handle.lookupByUUIDString(UUID)
        outside.resume()
        outside.suspend()
        outside.destroy()
        outside.create()
        outside.coreDump(str(tmp_path / "core"), libvirt.VIR_DUMP_CRASH)
        want = [RUNNING, PAUSED, RUNNING, PAUSED, OFF, RUNNING, OFF]
        assert await b.states(len(want)) == want

    play(tmp_path, story)


def test_what_is_off_is_destroyed_and_forgotten_without_a_word(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        await b.driver.destroy(UUID)
        await b.driver.forget(UUID)
        await b.driver.create(SPEC)
        await b.driver.destroy(UUID)
        await b.driver.destroy(UUID)
        await b.driver.forget(UUID)
        await b.driver.forget(UUID)
        assert await b.states(3) == [RUNNING, PAUSED, OFF]

    play(tmp_path, story)


def test_a_domain_is_made_again_after_its_stop(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        first = await b.driver.create(SPEC)
        await b.driver.destroy(UUID)
        second = await b.driver.create(SPEC)
        assert second.xid != first.xid

    play(tmp_path, story)


def test_a_name_that_another_domain_has_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    foreign = f"<node><domain type='test'><name>work</name><uuid>{OTHER}</uuid><memory>1024</memory>"
    node = foreign + "<os><type>hvm</type></os></domain></node>"

    async def story(b: Bench) -> None:
        before = await b.driver.domains()
        with pytest.raises(QubesError, match="refused"):
            await b.driver.create(SPEC)
        assert await b.driver.domains() == before
        assert before.keys() == {OTHER}

    play(tmp_path, story, node)


def test_a_create_of_what_runs_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        made = await b.driver.create(SPEC)
        with pytest.raises(QubesError, match="refused"):
            await b.driver.create(SPEC)
        assert await b.driver.domains() == {UUID: made}

    play(tmp_path, story)


@pytest.mark.parametrize("verb", ["pause", "unpause", "shutdown"])
def test_verbs_on_a_domain_that_is_not_there(tmp_path: Path, verb: str) -> None:
    async def story(b: Bench) -> None:
        with pytest.raises(QubeNotStarted):
            await getattr(b.driver, verb)(UUID)

    play(tmp_path, story)


@pytest.mark.parametrize("verb", ["suspend", "wake"])
def test_no_guest_sleeps(tmp_path: Path, verb: str) -> None:
    async def story(b: Bench) -> None:
        await b.driver.create(SPEC)
        with pytest.raises(NotSupported):
            await getattr(b.driver, verb)(UUID)
        assert (await b.driver.domains())[UUID].state is PAUSED

    play(tmp_path, story)


def test_figures(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        assert await b.driver.figures(UUID) == Figures()
        await b.driver.create(SPEC)
        first = await b.driver.figures(UUID)
        second = await b.driver.figures(UUID)
        assert (first.memory, first.memory_limit) == (400 * 1024, 1000 * 1024)
        assert 0 < first.cpu_time < second.cpu_time
        await b.driver.destroy(UUID)
        assert await b.driver.figures(UUID) == Figures()
        assert (await b.driver.figures(DOM0_UUID)).memory == b.driver.host().memory * 1024 > 0

    play(tmp_path, story)


def test_plugs(tmp_path: Path) -> None:
    second = Interface("00:16:3e:5e:6c:01", "10.137.0.5", "sys-net")

    async def story(b: Bench) -> None:
        await b.driver.create(SPEC)
        with pytest.raises(QubesError, match="already"):
            await b.driver.attach(UUID, UPLINK)
        await b.driver.attach(UUID, second)
        await b.driver.detach(UUID, UPLINK.mac)
        await b.driver.detach(UUID, UPLINK.mac)
        await b.driver.attach(UUID, UPLINK)
        await b.driver.destroy(UUID)
        with pytest.raises(QubesError, match="does not run"):
            await b.driver.attach(UUID, UPLINK)

    play(tmp_path, story)


def test_says_what_it_makes_up() -> None:
    assert {"statistics", "hot-plug", "start-paused", "agent"} <= make("test", "test:///default").synthetic


def test_unknown_driver() -> None:
    with pytest.raises(NotSupported, match="unknown driver 'vmware', expected one of test"):
        make("vmware", "vmware:///")


def test_libvirt_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def story(b: Bench) -> None:
        with pytest.raises(QubesError):
            await b.driver.create(DomainSpec("a/b", UUID, "pvh", 400, 400, 1))

    play(tmp_path, story)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_no_node(tmp_path: Path) -> None:
    async def story() -> None:
        file = tmp_path / "node.xml"
        file.write_text("<no")
        with pytest.raises(HypervisorLost, match="cannot reach"):
            await Embedded(f"test://{file}").open(lambda _: None, lambda: None)

    asyncio.run(story())


def test_a_call_after_the_end_fails(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as b:
            pass
        with pytest.raises(HypervisorLost):
            await b.driver.domains()

    asyncio.run(story())


def test_loop_after_loop_in_one_process(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        await b.driver.create(SPEC)
        assert await b.states(2) == [RUNNING, PAUSED]

    for turn in range(3):
        place = tmp_path / str(turn)
        place.mkdir()
        play(place, story)


def test_many_domains_at_once(tmp_path: Path) -> None:
    async def story(b: Bench) -> None:
        specs = [
            DomainSpec(f"q{n}", f"6d2a1ef0-9b5d-4a5c-8b8e-{n:012x}", "pvh", 400, 400, 1) for n in range(60)
        ]

        async def live(spec: DomainSpec) -> None:
            await b.driver.create(spec)
            await b.driver.unpause(spec.uuid)
            await b.driver.shutdown(spec.uuid)

        await asyncio.gather(*map(live, specs))
        await b.states(60 * 4)
        for spec in specs:
            told = [change.domain.state for change in b.news if change.uuid == spec.uuid]
            assert told == [RUNNING, PAUSED, RUNNING, OFF]

    play(tmp_path, story)
