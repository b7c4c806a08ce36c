"""A connection that breaks, and comes back: against a real libvirtd."""

import asyncio

import libvirt
import pytest

from qubesd.errors import HypervisorLost, QubesError
from qubesd.virt.connection import Connection
from qubesd.virt.embedded import Embedded
from qubesd.virt.hypervisor import DomainChange, DomainSpec, DomainState
from tests.qubesd.virt.distant import distant, needs_libvirtd

UUID = "6d2a1ef0-9b5d-4a5c-8b8e-0123456789ab"
SPEC = DomainSpec(name="work", uuid=UUID, virt_mode="pvh", memory=400, maxmem=400, vcpus=1)


@needs_libvirtd
def test_a_lost_connection_is_told_and_taken_up_again() -> None:
    async def story() -> None:
        back = asyncio.Event()
        news: list[DomainChange] = []
        with distant() as libvirtd:
            await libvirtd.bring()
            driver = Embedded(libvirtd.uri)
            await driver.open(news.append, back.set)
            try:
                await driver.create(SPEC)
                libvirtd.take_away()
                with pytest.raises(HypervisorLost):
                    await driver.domains()
                with pytest.raises(HypervisorLost, match="no connection"):
                    await driver.unpause(UUID)
                assert not back.is_set()
                await libvirtd.bring()
                async with asyncio.timeout(30):
                    await back.wait()
                assert UUID not in await driver.domains()
                news.clear()
                await driver.create(SPEC)
                async with asyncio.timeout(10):
                    while [change.domain.state for change in news] != [
                        DomainState.RUNNING,
                        DomainState.PAUSED,
                    ]:
                        await asyncio.sleep(0.01)
            finally:
                await driver.close()

    asyncio.run(story())


@needs_libvirtd
def test_an_idle_loss_is_noticed_without_a_call() -> None:
    async def story() -> None:
        back = asyncio.Event()
        with distant() as libvirtd:
            await libvirtd.bring()
            driver = Embedded(libvirtd.uri)
            await driver.open(lambda _: None, back.set)
            try:
                libvirtd.take_away()
                await libvirtd.bring()
                async with asyncio.timeout(30):
                    await back.wait()
            finally:
                await driver.close()

    asyncio.run(story())


@needs_libvirtd
def test_the_end_comes_while_it_reconnects() -> None:
    async def story() -> None:
        with distant() as libvirtd:
            await libvirtd.bring()
            driver = Embedded(libvirtd.uri)
            await driver.open(lambda _: None, lambda: None)
            libvirtd.take_away()
            with pytest.raises(HypervisorLost):
                await driver.domains()
            async with asyncio.timeout(10):
                await driver.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("tset:///default", id="no-such-driver"),
        pytest.param("test+unix:///default?socket=/nonexistent/socket", id="nobody-there"),
        pytest.param("test:///nonexistent/file", id="no-such-file"),
    ],
)
def test_what_cannot_be_reached_says_so(uri: str) -> None:
    async def story() -> None:
        connection = Connection(uri)
        with pytest.raises(HypervisorLost, match="cannot reach the hypervisor at"):
            await connection.open(lambda _: None, lambda: None)
        await connection.close()

    asyncio.run(story())


def test_a_refusal_is_no_loss() -> None:
    async def story() -> None:
        connection = Connection("test:///default")
        await connection.open(lambda _: None, lambda: None)
        try:
            with pytest.raises(QubesError, match="refused") as caught:
                await connection.ask(lambda handle: handle.defineXML("<domain/>"))
            assert not isinstance(caught.value, HypervisorLost)
            assert isinstance(caught.value.__cause__, libvirt.libvirtError)
            assert await connection.ask(lambda handle: handle.getType()) == "TEST"
        finally:
            await connection.close()

    asyncio.run(story())
