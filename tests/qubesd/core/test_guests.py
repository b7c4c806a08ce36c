"""Services in guests: a real program stands for the one that carries a call into a qube."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qubesd.core.guests import Guests
from qubesd.core.power_events import DomainCmdPreRun
from qubesd.errors import NotSupported, PermissionDenied, QubesError
from qubesd.extension import Extension, on
from qubesd.model.view import View
from tests.qubesd.house import House, visit

MIB = 1 << 20
RESIZE = "admin.vm.volume.Resize"
LARGER = str(3072 * MIB)


def program(tmp_path: Path, then: str = "") -> tuple[str, Path]:
    """A ``guest_service`` that notes its calls, and does something ``then``; and what it noted."""
    notes, place = tmp_path / "calls", tmp_path / "program"
    place.write_text(f'#!/bin/sh\necho "$1|$2|$(cat)" >>{notes}\necho noise\n{then}\n')
    place.chmod(0o755)
    return f"{place} {{qube}} 'root:{{service}} dom0'", notes


def stay(tmp_path: Path, guest: Callable[[House], Awaitable[None]], command: str) -> None:
    """In a house where ``work`` runs."""

    async def story(house: House) -> None:
        await house.do("admin.vm.feature.Set", "work", "qrexec", "1")
        await house.do("admin.vm.Start", "work")
        await guest(house)

    visit(tmp_path, story, guest_service=command)


def test_a_running_guest_is_told_that_its_volume_has_grown(tmp_path: Path) -> None:
    command, notes = program(tmp_path)

    async def guest(house: House) -> None:
        assert await house.call(RESIZE, "work", "private", LARGER) == ""
        assert notes.read_text() == "work|root:qubes.ResizeDisk dom0|private\n"
        await house.do("admin.vm.Kill", "work")
        assert await house.call(RESIZE, "work", "private", str(4096 * MIB)) == ""
        assert notes.read_text().count("\n") == 1

    stay(tmp_path, guest, command)


def test_it_is_told_before_and_can_be_refused(tmp_path: Path) -> None:
    command, notes = program(tmp_path)

    def refuse(view: View, event: DomainCmdPreRun) -> None:
        if event.subject == "work":
            raise PermissionDenied("not in there")

    async def guest(house: House) -> None:
        for name in ("work", "sys-net"):
            await house.do("admin.vm.feature.Set", name, "qrexec", "1")
            await house.do("admin.vm.Start", name)
        house.told.clear()
        for name in ("work", "sys-net"):
            await house.do("admin.vm.Suspend", name)
        assert house.names() == [
            "work domain-pre-paused",
            "work domain-paused",
            "sys-net domain-cmd-pre-run",
            "sys-net domain-pre-paused",
            "sys-net domain-paused",
        ]
        assert notes.read_text() == "sys-net|root:qubes.SuspendPre dom0|\n"

    extension = Extension(vetoes=(on(DomainCmdPreRun, refuse),))
    visit(tmp_path, guest, extensions={"veto": extension}, guest_service=command)


@pytest.mark.parametrize(
    ("command", "state"),
    [
        pytest.param("", "Running", id="not-configured"),
        pytest.param("/none {qube} {service}", "Running", id="not-there"),
        pytest.param("/bin/false {qube} {service}", "Running", id="fails"),
        pytest.param("/bin/true {qube} {service}", "Paused", id="paused"),
    ],
)
def test_a_guest_that_was_not_told(tmp_path: Path, command: str, state: str) -> None:
    """The new size stays, and the caller learns that the guest does not know."""

    async def guest(house: House) -> None:
        if state == "Paused":
            await house.do("admin.vm.Pause", "work")
        assert await house.call(RESIZE, "work", "private", LARGER) == "StoragePoolException"
        assert f"size={LARGER}\n" in await house.call("admin.vm.volume.Info", "work", "private")
        assert house.qube("work").volumes["private"].size == int(LARGER)

    stay(tmp_path, guest, command)


@pytest.mark.parametrize(
    ("then", "words"),
    [
        pytest.param("exit 3", "failed with status 3", id="fails"),
        pytest.param("exec sleep 600", "did not end within 0.5 seconds", id="hangs"),
        pytest.param("yes", "did not end within 0.5 seconds", id="floods"),
    ],
)
def test_a_call_that_goes_wrong_ends(tmp_path: Path, then: str, words: str) -> None:
    command, _ = program(tmp_path, then)

    async def guest(house: House) -> None:
        with pytest.raises(QubesError, match=words):
            await Guests(house.core, patience=0.5).call(house.qube("work"), "qubes.ResizeDisk", b"root")

    stay(tmp_path, guest, command)


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    command, _ = program(tmp_path, f"sleep 600 & echo $! > {child}; wait")

    async def guest(house: House) -> None:
        with pytest.raises(QubesError, match="did not end"):
            await Guests(house.core, patience=0.5).call(house.qube("work"), "qubes.ResizeDisk")
        status = Path(f"/proc/{child.read_text().strip()}/status")
        # Whoever adopts it may take a moment to bury it.
        assert not status.exists() or "State:\tZ" in status.read_text()

    stay(tmp_path, guest, command)


def test_nothing_is_called_where_nothing_is_configured(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        with pytest.raises(NotSupported, match="guest_service"):
            await Guests(house.core).call(house.qube("work"), "qubes.ResizeDisk")
        await Guests(house.core).tell((house.qube("work"),), "qubes.SuspendPreAll")

    visit(tmp_path, guest)


def test_a_guest_that_sleeps_is_told_before(tmp_path: Path) -> None:
    """Only one that has an agent and runs."""
    command, notes = program(tmp_path)

    async def guest(house: House) -> None:
        await house.do("admin.vm.Start", "sys-net")
        for name in ("work", "sys-net"):
            await house.do("admin.vm.Suspend", name)
            await house.do("admin.vm.Resume", name)
        assert notes.read_text() == "work|root:qubes.SuspendPre dom0|\n"

    stay(tmp_path, guest, command)
