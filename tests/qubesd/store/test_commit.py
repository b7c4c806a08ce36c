"""Group commit: shared writes, and what those who wait learn of a failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from qubesd.errors import StoreError
from qubesd.model.state import System
from qubesd.store.commit import GroupCommit

EMPTY = System()


class Disk:
    """A save that waits for leave, keeps what it was given, and fails when told to."""

    def __init__(self) -> None:
        self.saved: list[System] = []
        self.failure: Exception | None = None
        self.leave = threading.Event()
        self.leave.set()
        self.begun = threading.Semaphore(0)

    def save(self, system: System) -> None:
        self.begun.release()
        assert self.leave.wait(10)
        if self.failure is not None:
            raise self.failure
        self.saved.append(system)


class State:
    """What a core does with a commit."""

    def __init__(self, disk: Disk) -> None:
        self.system = EMPTY
        self.restored = 0
        self.commit = GroupCommit(disk.save, EMPTY)

    def change(self, number: int) -> Awaitable[None]:
        """Set one more property; the answer is to be awaited."""
        self.system = self.system.with_property(f"p{number}", number)
        return self.durable()

    def durable(self) -> Awaitable[None]:
        return self.commit.durable(lambda: self.system, self.restore)

    def restore(self) -> None:
        self.restored += 1
        self.system = self.commit.written


def run(scenario: Callable[[Disk, State], Awaitable[None]]) -> None:
    async def body() -> None:
        disk = Disk()
        state = State(disk)
        try:
            async with asyncio.timeout(20):
                await scenario(disk, state)
        finally:
            disk.leave.set()
            await state.commit.close()

    asyncio.run(body())


async def begun(disk: Disk) -> None:
    """Return when a write has begun."""
    assert await asyncio.to_thread(disk.begun.acquire, timeout=10)


def names(system: System) -> list[str]:
    return sorted(system.properties)


def test_a_change_is_written() -> None:
    async def scenario(disk: Disk, state: State) -> None:
        await state.change(1)
        assert disk.saved == [state.system]
        assert state.commit.written is state.system

    run(scenario)


def test_nothing_to_write() -> None:
    async def scenario(disk: Disk, state: State) -> None:
        await state.durable()
        await state.change(1)
        await state.durable()
        assert len(disk.saved) == 1

    run(scenario)


def test_changes_at_the_same_time_share_a_write() -> None:
    async def scenario(disk: Disk, state: State) -> None:
        await asyncio.gather(*(state.change(number) for number in range(100)))
        assert [len(system.properties) for system in disk.saved] == [100]

    run(scenario)


def test_changes_during_a_write_share_the_next() -> None:
    async def scenario(disk: Disk, state: State) -> None:
        disk.leave.clear()
        first = asyncio.ensure_future(state.change(1))
        await begun(disk)
        later = [asyncio.ensure_future(state.change(number)) for number in (2, 3)]
        await asyncio.sleep(0)
        disk.leave.set()
        await first
        assert not any(one.done() for one in later)
        await asyncio.gather(*later)
        assert [names(system) for system in disk.saved] == [["p1"], ["p1", "p2", "p3"]]

    run(scenario)


def test_a_failure_is_told_to_all_who_wait_and_undoes_their_changes() -> None:
    async def scenario(disk: Disk, state: State) -> None:
        await state.change(0)
        disk.begun.acquire()
        disk.leave.clear()
        disk.failure = StoreError("disk full")
        during = [asyncio.ensure_future(state.change(number)) for number in (1, 2)]
        await begun(disk)
        after = asyncio.ensure_future(state.change(3))
        await asyncio.sleep(0)
        disk.leave.set()
        results = await asyncio.gather(*during, after, return_exceptions=True)
        assert [(type(one), str(one)) for one in results] == [(StoreError, "disk full")] * 3
        assert state.restored == 1
        assert names(state.system) == ["p0"]
        disk.failure = None
        await state.change(4)
        assert names(disk.saved[-1]) == ["p0", "p4"]

    run(scenario)


def test_it_is_restored_before_anybody_is_told() -> None:
    """A change made right after the failure stands on what is on the disk, and is kept."""

    async def scenario(disk: Disk, state: State) -> None:
        disk.failure = StoreError("disk full")

        async def changes_again() -> None:
            with pytest.raises(StoreError):
                await state.change(1)
            assert state.system is EMPTY
            disk.failure = None
            await state.change(2)

        async def fails() -> None:
            with pytest.raises(StoreError):
                await state.change(3)

        await asyncio.gather(changes_again(), fails())
        assert [names(system) for system in disk.saved] == [["p2"]]
        assert names(state.system) == ["p2"]

    run(scenario)


def test_a_fault_of_the_writer_is_a_failure_too() -> None:
    async def scenario(disk: Disk, state: State) -> None:
        disk.failure = RuntimeError("a mistake")
        with pytest.raises(StoreError):
            await state.change(1)
        assert state.system is EMPTY

    run(scenario)


def test_a_cancelled_call_does_not_stop_the_write_of_others() -> None:
    async def scenario(disk: Disk, state: State) -> None:
        disk.leave.clear()
        calls = [asyncio.ensure_future(state.change(number)) for number in (1, 2)]
        await begun(disk)
        calls[0].cancel()
        disk.leave.set()
        await calls[1]
        assert names(disk.saved[-1]) == ["p1", "p2"]

    run(scenario)


def test_close_waits_for_the_write() -> None:
    async def scenario(disk: Disk, state: State) -> None:
        call = asyncio.ensure_future(state.change(1))
        await asyncio.sleep(0)
        await state.commit.close()
        await call
        assert len(disk.saved) == 1

    run(scenario)
