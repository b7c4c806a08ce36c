"""One backup under way, as far as it waits."""

from __future__ import annotations

import asyncio

import pytest

from qubesd.core.backup_job import Job
from qubesd.errors import BackupCancelled


async def forever() -> None:
    await asyncio.Event().wait()


async def seven() -> int:
    return 7


async def cancelled(before: bool) -> None:
    """A job that is cancelled before it waits for something, or meanwhile."""
    job = Job(lambda _: None)
    if before:
        job.cancel()
    else:
        asyncio.get_running_loop().call_later(0.01, job.cancel)
    try:
        async with asyncio.timeout(60):
            await job.wait(forever)
    finally:
        assert len(asyncio.all_tasks()) == 1
        job.close()


@pytest.mark.parametrize("before", [True, False], ids=["before", "meanwhile"])
def test_a_job_that_is_cancelled_waits_for_nothing(before: bool) -> None:
    with pytest.raises(BackupCancelled):
        asyncio.run(cancelled(before))


def test_what_was_waited_for_is_told() -> None:
    async def wait() -> int:
        job = Job(lambda _: None)
        try:
            return await job.wait(seven)
        finally:
            job.close()

    assert asyncio.run(wait()) == 7
