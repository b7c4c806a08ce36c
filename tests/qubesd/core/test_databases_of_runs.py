"""A run and its database: what is there when one begins, and what a daemon that starts again makes of it."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import libvirt
import pytest

from qubesd.core.core import NO_EXTENSIONS
from qubesd.errors import QubeError
from tests.qubesd.core.power_rig import Rig, play, rig, stored
from tests.qubesd.core.test_databases import KILL, START, entry, found, further
from tests.qubesd.house import House, house_at, visit


@pytest.mark.parametrize("ended", ["stopped", "removed", "daemon-killed"])
def test_a_run_begins_with_nothing_of_an_earlier_one(ended: str, tmp_path: Path) -> None:
    """Nor with what a qube of the same name left; whatever that was, and wherever it links."""

    def leave(place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        (place / "qubes-block-devices/sda").mkdir(parents=True)
        (place / "qubes-service").symlink_to(tmp_path)
        (place / "random-seed").write_text("x")
        os.mkfifo(place / "fifo")

    async def story() -> None:
        folder = tmp_path / "run/qubesdb"
        async with house_at(tmp_path, extensions=NO_EXTENSIONS) as house:
            await house.furnish()
            match ended:
                case "stopped":
                    await house.do(START, "work")
                    shutil.rmtree(folder / "work")
                    leave(folder / "work")
                    await house.do(KILL, "work")
                case "removed":
                    leave(folder / "work")
                    await house.do("admin.vm.Remove", "work")
                    assert not (folder / "work").exists()
                    await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=work label=red")
        if ended == "daemon-killed":
            leave(folder / "work")
        async with house_at(tmp_path, extensions=NO_EXTENSIONS) as house:
            assert not (folder / "work").exists()
            leave(folder / "work")
            await house.do(START, "work")
            assert further(tmp_path, "work") == {}
            assert sorted(place.name for place in (folder / "work").iterdir()) == sorted(
                {key.split("/")[1] for key in found(tmp_path, "work")}
                | {"qubes-block-devices", "qubes-usb-devices"}
            )
        assert list((folder / "~").iterdir()) == []
        assert (tmp_path / "run").exists()

    asyncio.run(story())


def test_a_start_whose_database_cannot_be_written_fails(tmp_path: Path) -> None:
    """As any other start that fails after the domain was made, and the next one is not harmed."""

    async def guest(house: House) -> None:
        folder = tmp_path / "run/qubesdb"
        folder.write_text("no folder")
        with pytest.raises(QubeError, match="the database of qube 'work' cannot be written"):
            await house.do(START, "work")
        assert house.core.running("work").state == "Halted"
        names = house.names()
        failed = names.index("work domain-start-failed")
        assert "work domain-spawn" in names[:failed]
        assert "work domain-qdb-create" not in names
        assert names[failed + 1] == "work domain-stopped"
        assert names[-1] == "work domain-shutdown"
        folder.unlink()
        await house.do(START, "work")
        assert found(tmp_path, "work")["/name"] == "work"

    visit(tmp_path, guest)


def test_a_daemon_that_starts_again_goes_on_with_the_run(tmp_path: Path) -> None:
    """It writes what changed meanwhile, takes away what is not said any more, and leaves what is the run's,
    unless the run is another one."""

    async def story() -> None:
        outside = libvirt.open("test:///default")
        database = tmp_path / "run/qubesdb/vault"
        try:
            async with rig(tmp_path, uri="test:///default", extensions={"a": entry("a")}) as first:
                first.put(first.qube("vault").with_feature("a", "1"))
                await first.core.durable()
                await first.core.power.start(first.qube("vault"))
                before = found(tmp_path, "vault")
                (database / "left").write_text("x")
                (database / "qubes-usb-devices/1-1").mkdir()
            with stored(tmp_path) as store:
                system = store.load()
                store.save(system.with_qube(system.qubes["vault"].with_property("debug", True)))
            async with rig(tmp_path, uri="test:///default") as second:
                del before["/a"]
                now = {**before, "/left": "x", "/qubes-debug-mode": "1"}
                assert found(tmp_path, "vault") == now
                assert (database / "qubes-usb-devices/1-1").exists()
                seed = now.pop("/qubes-random-seed")
            uuid = second.qube("vault").uuid
            outside.lookupByUUIDString(uuid).destroy()
            outside.lookupByUUIDString(uuid).create()
            async with rig(tmp_path, uri="test:///default") as third:
                again = found(tmp_path, "vault")
                assert again.pop("/qubes-random-seed") != seed
                assert again == now
                await third.core.power.kill(third.qube("vault"))
                await third.core.power.lives.forget(third.qube("vault"))
        finally:
            outside.close()

    asyncio.run(story())


def test_a_qube_that_was_never_on_the_disk_leaves_no_database(tmp_path: Path) -> None:
    """It was started, and then the write of its making failed."""

    async def story(r: Rig) -> None:
        late = replace(r.qube("vault"), name="late", qid=90, uuid=str(uuid4()))
        r.put(late)
        await r.core.power.start(late)
        assert found(tmp_path, "late")["/name"] == "late"
        r.core._restore()
        async with asyncio.timeout(10):
            while (tmp_path / "run/qubesdb/late").exists():
                await asyncio.sleep(0)
        assert r.core.databases.page("late") is None

    play(tmp_path, story)
