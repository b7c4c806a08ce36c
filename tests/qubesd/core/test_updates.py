"""Whose updates a guest may speak of, and when it is believed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from qubesd.core.volumes import Facts
from qubesd.model.state import VolumeConfig
from tests.qubesd.house import House, visit

NOTIFY = "qubes.NotifyUpdates"
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def features(house: House, name: str) -> dict[str, str]:
    """With ``T`` for a time."""
    return {name: TIME.sub("T", value) for name, value in house.qube(name).features.items()}


@pytest.mark.parametrize("caller", ["debian-13", "dom0"])
def test_of_itself_a_qube_says_all(caller: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        assert await house.call(NOTIFY, payload=" 3\n", caller=caller) == ""
        assert features(house, caller) == {"updates-available": "1", "last-updates-check": "T"}
        for _ in range(2):
            assert await house.call(NOTIFY, payload="0", caller=caller) == ""
            assert features(house, caller) == {
                "updates-available": "",
                "last-updates-check": "T",
                "last-update": "T",
            }

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    ("count", "runs", "outdated", "believed"),
    [
        pytest.param("2", False, False, True, id="some"),
        pytest.param("0", False, False, False, id="none"),
        pytest.param("2", True, False, False, id="the-template-is-perhaps-being-updated"),
        pytest.param("2", False, True, False, id="the-qube-is-behind-its-template"),
    ],
)
def test_of_its_template_a_qube_says_only_what_is_likely(
    count: str, runs: bool, outdated: bool, believed: bool, tmp_path: Path
) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Start", "work")
        if runs or outdated:
            await house.do("admin.vm.Start", "debian-13")
        if outdated:
            await house.do("admin.vm.Kill", "debian-13")
        before = house.core.system
        assert await house.call(NOTIFY, payload=count, caller="work") == ""
        wanted = {"updates-available": "1", "last-updates-check": "T"} if believed else {}
        assert features(house, "debian-13") == wanted
        assert (house.core.system is before) is not believed

    visit(tmp_path, guest)


def test_only_the_template_that_the_qube_has_by_then_is_spoken_of(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.TemplateVM", payload="name=other label=black")
        facts, begun, go_on = house.core.volumes.facts, asyncio.Event(), asyncio.Event()

        async def slow(volume: VolumeConfig) -> Facts:
            begun.set()
            await go_on.wait()
            return await facts(volume)

        house.core.volumes.facts = slow  # type: ignore[method-assign]
        asking = asyncio.create_task(house.call(NOTIFY, payload="1", caller="work"))
        await begun.wait()
        await house.do("admin.vm.property.Set", "work", "template", "other")
        go_on.set()
        assert await asking == ""
        assert features(house, "debian-13") == {}
        assert features(house, "other")["updates-available"] == "1"

    visit(tmp_path, guest)


def test_who_has_nothing_to_update_says_nothing(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.RemoteVM", payload="name=far label=red")
        before = house.core.system
        assert await house.call(NOTIFY, payload="1", caller="far") == ""
        assert house.core.system is before

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(" ", id="blank"),
        pytest.param("-1", id="sign"),
        pytest.param("1 2", id="two"),
        pytest.param("0x1", id="hexadecimal"),
        pytest.param("\u0661", id="other-digits"),
        pytest.param("1" * 10, id="too-long"),
        pytest.param(" " * 17 + "1", id="too-much-around-it"),
        pytest.param("1\0", id="nul"),
    ],
)
def test_what_is_no_number(payload: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        assert await house.call(NOTIFY, payload=payload, caller="debian-13") == "ProtocolError"
        assert features(house, "debian-13") == {}

    visit(tmp_path, guest)
