"""What a guest may ask of its own qube, and what is left of a request that goes too far."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qubesd.core.guest_database import GuestDatabase
from tests.qubesd.house import House, visit

REQUEST = "qubes.FeaturesRequest"


def asked(house: House, qube: str, folder: str = "features-request") -> Path:
    """Where the guest of this qube writes what it asks for."""
    place = house.core.config.run_dir / "qubesdb" / qube / folder
    place.mkdir(parents=True, exist_ok=True)
    return place


def ask(house: House, qube: str, features: dict[str, bytes]) -> None:
    for name, value in features.items():
        (asked(house, qube) / name).write_bytes(value)


async def one_that_runs(house: House) -> None:
    await house.do("admin.vm.Create.TemplateVM", payload="name=debian-13 label=black")
    await house.do("admin.vm.Start", "debian-13")


@pytest.mark.parametrize(
    "features",
    [
        pytest.param({"os": b"Linux\n"}, id="line-end"),
        pytest.param({"os": b"Linux\0"}, id="nul"),
        pytest.param({"os": b"Lin\xffx"}, id="no-ascii"),
        pytest.param({"os": "Linüx".encode()}, id="utf-8"),
        pytest.param({"os": b"a/b"}, id="slash"),
        pytest.param({"os": b"<x/>"}, id="markup"),
        pytest.param({"os": b"\x1b[2J"}, id="escape"),
        pytest.param({"os": b"%s"}, id="percent"),
        pytest.param({"os": b"Linux", "unknown": b"'"}, id="bad-one-among-good"),
        pytest.param({"os-distribution": b"d" * 513}, id="too-long"),
        pytest.param({f"supported-rpc.{number}": b"1" for number in range(257)}, id="too-many"),
        pytest.param({f"x{number}": b"v" * 400 for number in range(100)}, id="too-much-in-all"),
    ],
)
def test_a_request_out_of_bounds_leaves_no_trace(features: dict[str, bytes], tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await one_that_runs(house)
        ask(house, "debian-13", {"qrexec": b"1", **features})
        before = house.core.system
        house.told.clear()
        assert await house.call(REQUEST, caller="debian-13") == "ProtocolError"
        assert house.core.system is before
        assert house.told == []

    visit(tmp_path, guest, furnished=False)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("os distribution", id="blank"),
        pytest.param("os\n", id="line-end"),
        pytest.param("supported-rpc.a+b", id="argument"),
        pytest.param("supported-rpc.ü", id="no-ascii"),
        pytest.param("supported-rpc." + "x" * 90, id="too-long"),
        pytest.param("supported-rpc.", id="of-nothing"),
        pytest.param("service.cups", id="for-the-user-to-set"),
        pytest.param("owner-uuid", id="whose-it-is"),
        pytest.param("preload-dispvm", id="kept-by-the-daemon"),
        pytest.param("internal", id="hides-it"),
        pytest.param("prohibit-start", id="holds-it"),
        pytest.param("tag-created-vm-with", id="gives-tags"),
        pytest.param("set-created-guivm", id="gives-a-screen"),
        pytest.param("updates-available", id="of-another-call"),
        pytest.param("netvm", id="property"),
    ],
)
def test_what_no_guest_can_ask_for_is_passed_over(name: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await one_that_runs(house)
        ask(house, "debian-13", {name: b"1", "vmexec": b"1"})
        before = house.qube("debian-13")
        assert await house.call(REQUEST, caller="debian-13") == ""
        assert house.qube("debian-13") == before.with_feature("vmexec", "1")

    visit(tmp_path, guest, furnished=False)


def test_what_is_no_value_is_not_read(tmp_path: Path) -> None:
    """Nor waited for: a pipe that nobody writes to."""

    async def guest(house: House) -> None:
        await house.do("admin.vm.Start", "debian-13")
        secret = tmp_path / "secret"
        secret.write_text("secret")
        place = asked(house, "debian-13")
        (place / "os-distribution").symlink_to(secret)
        (place / "os-distribution-like").mkdir()
        os.mkfifo(place / "os-version")
        ask(house, "debian-13", {"os": b"Linux"})
        assert await house.call(REQUEST, caller="debian-13") == ""
        assert dict(house.qube("debian-13").features) == {"os": "Linux"}

    visit(tmp_path, guest)


def test_the_folder_of_another_qube_is_not_followed_to(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        for name in ("debian-13", "sys-net"):
            await house.do("admin.vm.Start", name)
        ask(house, "debian-13", {"supported-rpc.of-the-template": b"1"})
        place = asked(house, "sys-net")
        place.rmdir()
        place.symlink_to(asked(house, "debian-13"))
        assert await house.call(REQUEST, caller="sys-net") == ""
        assert "supported-rpc.of-the-template" not in house.qube("sys-net").features

    visit(tmp_path, guest)


def test_a_request_is_for_the_qube_that_makes_it(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Start", "work")
        ask(house, "work", {"supported-rpc.mine": b"1", "os": b"Linux"})
        before = house.core.system
        assert await house.call(REQUEST, caller="work") == ""
        changed = before.qubes["work"].with_feature("supported-rpc.mine", "1")
        assert house.core.system.qubes == {**before.qubes, "work": changed}

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    ("caller", "error"),
    [
        pytest.param("work", "QubesVMNotRunningError", id="halted"),
        pytest.param("dom0", "QubesVMNotRunningError", id="dom0"),
        pytest.param("far", "QubesVMNotRunningError", id="elsewhere"),
    ],
)
@pytest.mark.parametrize("call", [REQUEST, "qubes.NotifyTools"])
def test_who_has_no_database_asks_for_nothing(call: str, caller: str, error: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.RemoteVM", payload="name=far label=red")
        ask(house, caller, {"supported-rpc.x": b"1"})
        before = house.core.system
        assert await house.call(call, caller=caller) == error
        assert house.core.system is before

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    ("maxmem", "kept"),
    [
        pytest.param("", 0, id="its-memory-stands-still"),
        pytest.param("800", 800, id="its-memory-was-set-to-move"),
    ],
)
def test_a_windows_guest_asks_while_it_runs(maxmem: str, kept: int, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        xen = replace(house.core.host, memory=16000, balances_memory=True)
        house.core.hypervisor.host = lambda: xen  # type: ignore[method-assign]
        await house.do("admin.vm.Create.StandaloneVM", payload="name=win label=red")
        for name, value in (("virt_mode", "hvm"), *((("maxmem", maxmem),) if maxmem else ())):
            await house.do("admin.vm.property.Set", "win", name, value)
        await house.do("admin.vm.Start", "win")
        for name in ("os", "qrexec"):
            (asked(house, "win", "qubes-tools") / name).write_text({"os": "Windows", "qrexec": "1"}[name])
        assert await house.call("qubes.NotifyTools", caller="win") == ""
        found = house.qube("win")
        assert found.features["os"] == "Windows"
        assert found.features["stubdom-qrexec"] == "1"
        assert (found.properties["maxmem"], found.properties["qrexec_timeout"]) == (kept, 6000)

    visit(tmp_path, guest, furnished=False)


class Slow(GuestDatabase):
    """One that is read when the test says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def names(self, key: str, most: int) -> list[str]:
        self.begun.set()
        assert self.go_on.wait(20)
        return super().names(key, most)


async def kill(house: House) -> None:
    await house.do("admin.vm.Kill", "alone")


async def put_another(house: House) -> None:
    """By another qube of the name, whose guest asks for the same."""
    await house.do("admin.vm.Kill", "alone")
    await house.do("admin.vm.Remove", "alone")
    await house.do("admin.vm.Create.StandaloneVM", payload="name=alone label=red")
    await house.do("admin.vm.Start", "alone")
    ask(house, "alone", {"supported-rpc.x": b"1"})


@pytest.mark.parametrize(
    ("meanwhile", "error"),
    [
        pytest.param(kill, "QubesVMNotRunningError", id="stopped"),
        pytest.param(put_another, "QubesVMNotFoundError", id="replaced"),
    ],
)
def test_what_is_read_of_a_qube_that_is_gone_by_then_does_not_count(
    meanwhile: Callable[[House], Awaitable[None]], error: str, tmp_path: Path
) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.StandaloneVM", payload="name=alone label=red")
        await house.do("admin.vm.Start", "alone")
        ask(house, "alone", {"supported-rpc.x": b"1"})
        slow = Slow(tmp_path / "run/qubesdb/alone")
        house.core.databases.of = lambda qube: slow  # type: ignore[method-assign]
        asking = asyncio.create_task(house.call(REQUEST, caller="alone"))
        await asyncio.to_thread(slow.begun.wait, 20)
        del house.core.databases.of
        await meanwhile(house)
        slow.go_on.set()
        assert await asking == error
        assert dict(house.qube("alone").features) == {}

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    ("tools", "features"),
    [
        pytest.param({"qrexec": b"1", "gui": b"1", "os": b"Linux"},
                     {"qrexec": "1", "gui": "1", "os": "Linux"}, id="all-well"),
        pytest.param({"default-user": b"root", "os": b"Linux"}, {"os": "Linux"}, id="user-is-not-the-guests"),
        pytest.param({"os": b"Linux", "version": b"4"}, {"os": "Linux"}, id="further-key"),
        pytest.param({"os": b"Linux", "gui": b"1 "}, None, id="blank"),
        pytest.param({"os": b"Linux", "gui": b"-"}, None, id="other-letters"),
    ],
)  # fmt: skip
def test_older_tools(tools: dict[str, bytes], features: dict[str, str] | None, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await one_that_runs(house)
        for name, value in tools.items():
            (asked(house, "debian-13", "qubes-tools") / name).write_bytes(value)
        answer = await house.call("qubes.NotifyTools", caller="debian-13")
        assert answer == ("ProtocolError" if features is None else "")
        assert dict(house.qube("debian-13").features) == (features or {})

    visit(tmp_path, guest, furnished=False)


def test_the_event_comes_first_and_tells_what_was_asked(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Start", "debian-13")
        ask(house, "debian-13", {"qrexec": b"1"})
        house.told.clear()
        assert await house.call(REQUEST, caller="debian-13") == ""
        assert house.told == [
            ("debian-13", "features-request", {"untrusted_features": "{'qrexec': '1'}"}),
            ("debian-13", "domain-feature-pre-set:qrexec", {"feature": "qrexec", "value": "1"}),
            ("debian-13", "domain-feature-set:qrexec", {"feature": "qrexec", "value": "1"}),
            ("debian-13", "template-postinstall", {}),
        ]
        house.told.clear()
        assert await house.call(REQUEST, caller="debian-13") == ""
        assert house.names() == ["debian-13 features-request"]

    visit(tmp_path, guest)
