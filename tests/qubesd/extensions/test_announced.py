"""Which of a guest's announcements become features of its qube."""

from __future__ import annotations

from pathlib import Path

import pytest

from qubesd.core.draft import Draft
from qubesd.core.guest_events import FeaturesRequest
from tests.qubesd.house import House, visit


def announce(house: House, qube: str, features: dict[str, str]) -> None:
    draft = Draft(house.core)
    draft.tell(FeaturesRequest(qube, features))
    draft.apply()


WINDOWS = {
    "os": "Windows",
    "qrexec": "1",
    "rpc-clipboard": "1",
    "stubdom-qrexec": "1",
    "audio-model": "ich6",
    "timezone": "localtime",
    "no-monitor-layout": "1",
}
MODE = {"boot-mode.kernelopts.safe": "single"}


def supported(*names: str) -> dict[str, str]:
    return {f"supported-{name}": "1" for name in names}


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        pytest.param({}, {"os": "Linux"}, {"os": "Linux"}, id="os"),
        pytest.param({}, {"os": "Plan9"}, {}, id="other-os"),
        pytest.param({}, {"os-version": "13.1-2"}, {"os-version": "13.1-2"}, id="version"),
        pytest.param({}, {"os-version": "-13"}, {}, id="version-without-a-first-digit"),
        pytest.param({}, {"os-distribution": "debian"}, {"os-distribution": "debian"}, id="distribution"),
        pytest.param({}, {"os-distribution": ""}, {}, id="no-distribution"),
        pytest.param({}, {"os-eol": "2028-02-29"}, {"os-eol": "2028-02-29"}, id="end-of-life"),
        pytest.param({}, {"os-eol": "2027-02-29"}, {}, id="no-such-day"),
        pytest.param({}, {"os-eol": "20280228"}, {}, id="day-of-another-form"),
        pytest.param({}, {"qubes-agent-version": "4.3"}, {"qubes-agent-version": "4.3"}, id="agent"),
        pytest.param({}, {"qubes-agent-version": "4.3.1"}, {}, id="agent-of-another-form"),
        pytest.param({}, {"qrexec": "0"}, {"qrexec": ""}, id="no-agent"),
        pytest.param({"gui": ""}, {"gui": "1"}, {"gui": ""}, id="the-user-has-said-otherwise"),
        pytest.param({}, {"gui": "yes"}, {}, id="gui-of-another-form"),
        pytest.param({"vmexec": ""}, {"vmexec": "1"}, {"vmexec": "1"}, id="always-the-last-word"),
        pytest.param(
            {"qubes-firewall": "1"}, {"qubes-firewall": "0"}, {"qubes-firewall": ""}, id="off-again"
        ),
        pytest.param({}, {"anon-timezone": "1"}, {"anon-timezone": "1"}, id="anonymous"),
        pytest.param(
            {"anon-timezone": "1"}, {"anon-timezone": "0"}, {"anon-timezone": "1"}, id="stays-anonymous"
        ),
        pytest.param({}, {"os": "Windows", "qrexec": "1"}, WINDOWS, id="windows"),
        pytest.param({}, {"os": "Windows"}, {"os": "Windows"}, id="windows-without-an-agent"),
        pytest.param(
            {"audio-model": "none"},
            {"os": "Windows", "qrexec": "1"},
            {**WINDOWS, "audio-model": "none"},
            id="windows-with-other-sound",
        ),
        pytest.param(
            supported("rpc.old", "service.s"),
            supported("rpc.new"),
            supported("rpc.new", "service.s"),
            id="a-group-as-it-was-said-last",
        ),
        pytest.param(supported("rpc.old"), {}, supported("rpc.old"), id="a-group-of-which-nothing-is-said"),
        pytest.param(supported("rpc.old"), {"supported-rpc.new": "0"}, supported("rpc.old"), id="not-so"),
        pytest.param({}, MODE, MODE, id="mode"),
        pytest.param(
            {"boot-mode.kernelopts.old": "x", "boot-mode.name.old": "Old"}, MODE, MODE, id="modes-that-went"
        ),
        pytest.param({}, {"boot-mode.kernelopts.default": "x"}, {}, id="the-default-has-no-options"),
        pytest.param({}, {"boot-mode.name.default": "Usual"}, {"boot-mode.name.default": "Usual"},
                     id="the-default-has-a-name"),
        pytest.param({}, {"boot-mode.kernelopts.a.b": "x", "boot-mode.kernelopts.": "x"}, {}, id="bad-modes"),
        pytest.param(
            {},
            {"boot-mode.name.a": "Same", "boot-mode.name.b": "Same"},
            {"boot-mode.name.a": "Same"},
            id="modes-of-one-name",
        ),
        pytest.param({}, {**MODE, "boot-mode.active": "safe"}, {**MODE, "boot-mode.active": "safe"},
                     id="mode-in-use"),
        pytest.param({}, {**MODE, "boot-mode.active": "none"}, MODE, id="unknown-mode"),
        pytest.param({}, {"boot-mode.appvm-default": "default"}, {"boot-mode.appvm-default": "default"},
                     id="mode-of-those-behind-it"),
        pytest.param(
            {},
            {f"boot-mode.kernelopts.m{number:02}": "x" for number in range(70)},
            {f"boot-mode.kernelopts.m{number:02}": "x" for number in range(64)},
            id="too-many-modes",
        ),
    ],
)  # fmt: skip
def test_a_template(
    before: dict[str, str], asked: dict[str, str], after: dict[str, str], tmp_path: Path
) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.TemplateVM", payload="name=debian-13 label=black")
        for name, value in before.items():
            await house.do("admin.vm.feature.Set", "debian-13", name, value)
        announce(house, "debian-13", asked)
        assert dict(house.qube("debian-13").features) == after

    visit(tmp_path, guest, furnished=False)


@pytest.mark.parametrize(
    ("asked", "after"),
    [
        pytest.param({"os": "Linux", "qrexec": "1", "vmexec": "1"}, {}, id="system"),
        pytest.param(supported("service.s", "feature.f"), {}, id="what-the-system-can"),
        pytest.param(supported("rpc.r"), supported("rpc.r"), id="its-own-services"),
        pytest.param({**MODE, "boot-mode.active": "default"}, {}, id="modes"),
    ],
)
def test_a_qube_of_a_template(asked: dict[str, str], after: dict[str, str], tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        announce(house, "work", asked)
        assert dict(house.qube("work").features) == after

    visit(tmp_path, guest)


def test_the_properties_of_a_windows_guest(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        announce(house, "debian-13", {"os": "Windows", "qrexec": "1"})
        assert house.qube("debian-13").properties["maxmem"] == 0
        assert house.qube("debian-13").properties["qrexec_timeout"] == 6000

    visit(tmp_path, guest)


def test_a_mode_for_those_behind_it_is_a_templates_to_say(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.StandaloneVM", payload="name=alone label=red")
        announce(house, "alone", {"boot-mode.appvm-default": "default", "boot-mode.active": "default"})
        assert dict(house.qube("alone").features) == {"boot-mode.active": "default"}

    visit(tmp_path, guest)
