"""What running guests find in their databases, and that it follows what is so."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qubesd.core.power_events import DomainQdbCreate
from qubesd.extension import Extension, Look
from qubesd.model.state import Qube
from tests.qubesd.house import House, visit

FEATURE, SET, START, KILL = "admin.vm.feature.Set", "admin.vm.property.Set", "admin.vm.Start", "admin.vm.Kill"


def found(root: Path, qube: str) -> dict[str, str]:
    """All that stands in a database."""
    folder = root / "run/qubesdb" / qube
    files = [place for place in folder.rglob("*") if place.is_file()]
    return {f"/{place.relative_to(folder)}": place.read_text() for place in files}


async def settled() -> None:
    """When the turn of the loop in which something changed is over."""
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("calls", "key", "value"),
    [
        pytest.param([], "/qubes-gui-enabled", "True", id="gui"),
        pytest.param([], "/qubes-gui-domain-xid", "0", id="dom0-shows"),
        pytest.param([], "/qubes-audio-domain-xid", "0", id="dom0-plays"),
        pytest.param([], "/keyboard-layout", "us++", id="keyboard"),
        pytest.param([(SET, "work", "guivm", "")], "/qubes-gui-enabled", "False", id="no-gui"),
        pytest.param([(SET, "work", "guivm", "")], "/qubes-gui-domain-xid", None, id="nobody-shows"),
        pytest.param([(SET, "work", "audiovm", "sys-net")], "/qubes-audio-domain-xid", None, id="halted"),
        pytest.param(
            [(SET, "dom0", "keyboard_layout", "de++")], "/keyboard-layout", "de++", id="keyboard-of-who-shows"
        ),
        pytest.param([(FEATURE, "work", "service.cups", "1")], "/qubes-service/cups", "1", id="service-on"),
        pytest.param([(FEATURE, "work", "service.cups")], "/qubes-service/cups", "0", id="service-off"),
        pytest.param([(FEATURE, "debian-13", "service.cups", "1")], "/qubes-service/cups", None,
                     id="service-of-the-template"),
        pytest.param([], "/qubes-service/meminfo-writer", "0", id="memory-not-balanced"),
        pytest.param([(FEATURE, "work", "vm-config.a", "b c")], "/vm-config/a", "b c", id="setting"),
        pytest.param([(FEATURE, "work", "custom-persist.a", "/a")], "/persist/a", "/a", id="persistence"),
        pytest.param(
            [("admin.vm.Create.RemoteVM", "dom0", "", "name=far label=red"), (SET, "far", "relayvm", "work")],
            "/remote/far", "far", id="relay",
        ),
        pytest.param(
            [("admin.vm.Create.RemoteVM", "dom0", "", "name=far label=red"), (SET, "far", "relayvm", "work"),
             (SET, "far", "remote_name", "home")],
            "/remote/far", "home", id="relay-by-its-other-name",
        ),
        pytest.param(
            [("admin.vm.Create.RemoteVM", "dom0", "", "name=far label=red"), (SET, "far", "relayvm", "work"),
             (SET, "far", "relayvm", "")],
            "/remote/far", None, id="relay-of-another",
        ),
        pytest.param(
            [("admin.vm.Create.RemoteVM", "dom0", "", "name=far label=red"), (SET, "far", "relayvm", "work"),
             ("admin.vm.Remove", "far")],
            "/remote/far", None, id="relay-of-what-is-gone",
        ),
        pytest.param([("admin.property.Set", "dom0", "default_guivm", "sys-net"), (START, "sys-net")],
                     "/qubes-gui-domain-xid", "XID", id="another-qube-shows"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("when", ["before", "after"])
def test_entry(calls: list[tuple[str, ...]], key: str, value: str | None, when: str, tmp_path: Path) -> None:
    """The same whether it was so when the qube started or is only since then."""

    async def guest(house: House) -> None:
        if when == "after":
            await house.do(START, "work")
        for call in calls:
            await house.do(*call)
        if when == "before":
            await house.do(START, "work")
        await settled()
        xid = str(house.core.running("sys-net").xid)
        assert found(tmp_path, "work").get(key) == (xid if value == "XID" else value)
        assert found(tmp_path, "dom0") == found(tmp_path, "debian-13") == {}

    visit(tmp_path, guest)


def entry(name: str) -> Extension:
    """The feature of this name, as an entry."""

    def entries(look: Look, qube: Qube) -> Mapping[str, str]:
        return {f"/{name}": qube.features[name]} if name in qube.features else {}

    return Extension(entries=entries)


def stay(tmp_path: Path, guest: Any, **extensions: Extension) -> None:
    visit(tmp_path, guest, extensions=extensions)


def further(root: Path, qube: str) -> dict[str, str]:
    """What stands in a database besides what every guest finds."""
    core = ("/name", "/type", "/default-user", "/qubes-")
    return {key: value for key, value in found(root, qube).items() if not key.startswith(core)}


def test_entries_are_there_when_the_event_tells_of_them(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    async def guest(house: House) -> None:
        house.core.bus.subscribe(DomainQdbCreate, lambda event: seen.append(found(tmp_path, event.subject)))
        await house.do(FEATURE, "work", "a", "1")
        await house.do(START, "work")
        (entries,) = seen
        assert entries["/a"] == "1"
        assert entries == found(tmp_path, "work")
        assert entries.keys() >= {"/name", "/qubes-random-seed"}

    stay(tmp_path, guest, a=entry("a"))


def test_what_the_guest_wrote_stays_while_it_runs(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(FEATURE, "work", "a", "1")
        await house.do(START, "work")
        (tmp_path / "run/qubesdb/work/mine").write_text("x")
        await house.do(FEATURE, "work", "a", "2")
        await settled()
        assert further(tmp_path, "work") == {"/a": "2", "/mine": "x"}
        await house.do("admin.vm.feature.Remove", "work", "a")
        await house.do(FEATURE, "work", "b", "1")
        await settled()
        assert further(tmp_path, "work") == {"/b": "1", "/mine": "x"}
        await house.do(KILL, "work")
        assert not (tmp_path / "run/qubesdb/work").exists()
        await house.do(FEATURE, "work", "b", "2")
        await settled()
        assert not (tmp_path / "run/qubesdb/work").exists()
        await house.do(START, "work")
        assert further(tmp_path, "work") == {"/b": "2"}

    stay(tmp_path, guest, a=entry("a"), b=entry("b"))


def test_a_guest_finds_what_it_found_where_the_extension_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def entries(look: Look, qube: Qube) -> Mapping[str, str]:
        return {"/a": qube.features["a"]}

    async def guest(house: House) -> None:
        await house.do(FEATURE, "work", "a", "1")
        await house.do(START, "work")
        await house.do("admin.vm.feature.Remove", "work", "a")
        await settled()
        assert further(tmp_path, "work") == {"/a": "1"}
        assert "extension 'a' failed in entries of 'work'" in caplog.text

    stay(tmp_path, guest, a=Extension(entries=entries))


def test_no_link_of_a_guest_is_written_through(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def guest(house: House) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "cups").write_text("mine")
        await house.do(START, "work")
        database = tmp_path / "run/qubesdb/work"
        shutil.rmtree(database / "qubes-service")
        (database / "qubes-service").symlink_to(outside)
        (database / "keyboard-layout").unlink()
        (database / "keyboard-layout").symlink_to(outside / "cups")
        await house.do(SET, "work", "keyboard_layout", "de++")
        await house.do(FEATURE, "work", "service.cups", "1")
        await settled()
        assert [place.name for place in outside.iterdir()] == ["cups"]
        assert (outside / "cups").read_text() == "mine"
        assert "the database of qube 'work' cannot be written" in caplog.text
        assert house.core.running("work").state == "Running"
        # What could not be written is when it can be, with the next change.
        (database / "qubes-service").unlink()
        await house.do(FEATURE, "work", "service.ntp", "1")
        await settled()
        assert found(tmp_path, "work")["/qubes-service/cups"] == "1"

    visit(tmp_path, guest)


def test_entries_that_are_none_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def entries(look: Look, qube: Qube) -> Mapping[str, str]:
        many = {f"/many/{number:04}": "x" for number in range(1024)}
        return {"/../a": "x", "/b": "x" * 3073, "/c": "x" * 3072, **many}

    async def guest(house: House) -> None:
        await house.do(START, "work")
        keys = further(tmp_path, "work").keys()
        assert "/c" in keys
        assert "/many/1020" in keys
        assert len(keys) == 1022
        assert caplog.text.count("left out") == 1
        assert (
            "extension 'a': 5 entries of qube 'work' are left out: '/../a', '/b', '/many/1021'" in caplog.text
        )
        for again in ("blue", "red"):
            await house.do(SET, "work", "label", again)
        assert caplog.text.count("left out") == 1

    stay(tmp_path, guest, a=Extension(entries=entries))


def test_no_extension_hides_what_the_core_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = ("/name", "/qubes-random-seed", "/qubes-firewall/10.0.0.1/policy", "/connected-ips",
            "/qubes-block-devices/sda/desc", "/mapped-ip/10.0.0.1/visible-ip", "/free")  # fmt: skip

    async def guest(house: House) -> None:
        await house.do(START, "work")
        entries = found(tmp_path, "work")
        assert entries["/name"] == "work"
        assert len(entries["/qubes-random-seed"]) == 88
        assert {key for key in entries if entries[key] == "mine"} == {"/free"}
        left_out = ", ".join(repr(key) for key in sorted(set(keys) - {"/name", "/free"}))
        assert f"extension 'a': 5 entries of qube 'work' are left out: {left_out}" in caplog.text

    stay(tmp_path, guest, a=Extension(entries=lambda look, qube: dict.fromkeys(keys, "mine")))


def test_an_entry_below_another_one_keeps_no_qube_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = {"/name/x": "1", "/a/b/c": "2", "/a/b": "3", "/a/d": "4"}

    async def guest(house: House) -> None:
        await house.do(START, "work")
        assert further(tmp_path, "work") == {"/a/b": "3", "/a/d": "4"}
        assert found(tmp_path, "work")["/name"] == "work"
        line = "below another entry: 2 entries of qube 'work' are left out: '/a/b/c', '/name/x'"
        assert line in caplog.text

    stay(tmp_path, guest, a=Extension(entries=lambda look, qube: said))


def test_only_those_concerned_are_looked_at_again(tmp_path: Path) -> None:
    """However many run beside them; ``work`` is behind ``sys-net`` and has ``web-dvm`` as guivm."""
    asked: list[str] = []

    def entries(look: Look, qube: Qube) -> Mapping[str, str]:
        asked.append(qube.name)
        return {}

    async def guest(house: House) -> None:
        await house.do(SET, "work", "netvm", "sys-net")
        await house.do(SET, "work", "guivm", "web-dvm")
        await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=other label=red")
        await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=third label=red")
        for name in ("work", "other"):
            await house.do(START, name)
        for calls, concerned in (
            ([(START, "third"), (KILL, "third"), ("admin.vm.Remove", "third")], {"third"}),
            ([(FEATURE, "dom0", "service.a", "1")], set()),
            ([(FEATURE, "other", "a", "1")], {"other"}),
            ([(START, "web-dvm"), (KILL, "web-dvm")], {"web-dvm", "work"}),
            ([(FEATURE, "sys-net", "ipv6", "1")], {"sys-net", "work"}),
            ([(FEATURE, "debian-13", "a", "1")], {"sys-net", "work", "other"}),
        ):
            await settled()
            asked.clear()
            for call in calls:
                await house.do(*call)
            await settled()
            assert set(asked) == concerned, calls

    stay(tmp_path, guest, a=Extension(entries=entries))


def test_another_netvm_is_known_when_the_event_tells_of_it(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def guest(house: House) -> None:
        for name in ("work", "sys-net"):
            await house.do(START, name)
        house.core.bus.subscribe(
            DomainQdbCreate, lambda event: seen.append(found(tmp_path, event.subject).get("/qubes-gateway"))
        )
        await house.do(SET, "work", "netvm", "sys-net")
        assert seen == ["10.137.0.3"]

    visit(tmp_path, guest)
