"""Each change tells what ``spec/event-sequences.md`` records, in an order that clients can rely on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.qubesd.house import House, visit

SET, RESET = "admin.vm.property.Set", "admin.vm.property.Reset"
SET_GLOBAL, RESET_GLOBAL = "admin.property.Set", "admin.property.Reset"

SEQUENCES = [
    pytest.param(
        (SET, "work", "label", "green"),
        "work property-pre-set:label, work property-reset:icon, work property-set:label",
        id="label",
    ),
    pytest.param(
        (SET, "work", "memory", "400"),
        "work property-pre-set:memory, work property-set:memory",
        id="to-the-value-it-has",
    ),
    pytest.param((SET, "work", "memory", "-1"), "", id="refused"),
    pytest.param(
        (RESET, "work", "vcpus"),
        "work property-pre-reset:vcpus, work property-pre-del:vcpus, work property-reset:vcpus,"
        " work property-del:vcpus",
        id="reset-to-the-default-it-has",
    ),
    pytest.param((RESET, "work", "klass"), "", id="reset-of-a-computed-one"),
    pytest.param(
        (SET, "sys-net", "ip", "10.9.9.9"),
        "sys-net property-pre-set:ip, sys-net property-reset:visible_ip, sys-net property-reset:gateway,"
        " sys-net property-set:ip",
        id="address-of-a-netvm",
    ),
    pytest.param(
        (SET, "work", "provides_network", "True"),
        "work property-pre-set:provides_network, work domain-feature-pre-set:servicevm,"
        " work domain-feature-set:servicevm, work property-reset:icon, work property-reset:gateway,"
        " work property-reset:gateway6, work property-set:provides_network",
        id="network-given",
    ),
    pytest.param(
        (RESET, "sys-net", "provides_network"),
        "sys-net property-pre-reset:provides_network, sys-net property-pre-del:provides_network,"
        " sys-net domain-feature-pre-delete:servicevm, sys-net domain-feature-delete:servicevm,"
        " sys-net property-reset:icon, sys-net property-reset:provides_network,"
        " sys-net property-del:provides_network",
        id="network-withdrawn",
    ),
    pytest.param(
        (SET, "work", "guivm", "sys-net"),
        "work property-pre-set:guivm, work domain-tag-delete:guivm-dom0,"
        " work domain-tag-add:guivm-sys-net, work property-set:guivm",
        id="guivm",
    ),
    pytest.param(
        (SET, "debian-13", "vcpus", "3"),
        "debian-13 property-pre-set:vcpus, sys-net property-reset:vcpus, web-dvm property-reset:vcpus,"
        " work property-reset:vcpus, debian-13 property-set:vcpus",
        id="taken-from-the-template",
    ),
    pytest.param(
        (SET, "dom0", "keyboard_layout", "de++"),
        "dom0 property-pre-set:keyboard_layout, debian-13 property-reset:keyboard_layout,"
        " sys-net property-reset:keyboard_layout, web-dvm property-reset:keyboard_layout,"
        " work property-reset:keyboard_layout, dom0 property-set:keyboard_layout",
        id="layout-of-the-gui-qube",
    ),
    pytest.param(
        (SET_GLOBAL, "dom0", "default_netvm", "sys-net"),
        "property-pre-set:default_netvm, web-dvm property-pre-set:netvm, work property-pre-set:netvm,"
        " web-dvm property-set:netvm, web-dvm property-reset:netvm, work property-set:netvm,"
        " work property-reset:netvm, property-set:default_netvm",
        id="default-netvm",
    ),
    pytest.param(
        (SET_GLOBAL, "dom0", "default_dispvm", "web-dvm"),
        "property-pre-set:default_dispvm, dom0 property-reset:default_dispvm,"
        " debian-13 property-reset:default_dispvm, sys-net property-reset:default_dispvm,"
        " web-dvm property-reset:default_dispvm, work property-reset:default_dispvm,"
        " property-set:default_dispvm",
        id="default-dispvm",
    ),
    pytest.param(
        (SET_GLOBAL, "dom0", "clockvm", "sys-net"),
        "property-pre-set:clockvm, sys-net domain-feature-pre-set:service.clocksync,"
        " sys-net domain-feature-set:service.clocksync, property-set:clockvm",
        id="clock",
    ),
    pytest.param(
        (RESET_GLOBAL, "dom0", "default_netvm"),
        "property-pre-reset:default_netvm, property-pre-del:default_netvm, property-reset:default_netvm,"
        " property-del:default_netvm",
        id="default-netvm-reset-without-a-change",
    ),
    pytest.param(
        (RESET_GLOBAL, "dom0", "default_dispvm"),
        "property-pre-reset:default_dispvm, property-pre-del:default_dispvm,"
        " dom0 property-reset:default_dispvm, debian-13 property-reset:default_dispvm,"
        " sys-net property-reset:default_dispvm,"
        " web-dvm property-reset:default_dispvm, work property-reset:default_dispvm,"
        " property-reset:default_dispvm, property-del:default_dispvm",
        id="default-dispvm-reset",
    ),
    pytest.param(("admin.vm.tag.Set", "work", "team"), "work domain-tag-add:team", id="tag"),
    pytest.param(("admin.vm.tag.Set", "work", "created-by-dom0"), "", id="tag-that-is-there"),
    pytest.param(("admin.vm.tag.Remove", "work", "team"), "", id="tag-that-is-not-there"),
    pytest.param(
        ("admin.vm.feature.Set", "work", "f", "1"),
        "work domain-feature-pre-set:f, work domain-feature-set:f",
        id="feature",
    ),
    pytest.param(("admin.vm.feature.Remove", "work", "f"), "", id="feature-that-is-not-there"),
    pytest.param(
        ("admin.vm.feature.Set", "work", "service.meminfo-writer", ""),
        "work domain-feature-pre-set:service.meminfo-writer, work property-set:maxmem,"
        " work domain-feature-set:service.meminfo-writer",
        id="feature-that-means-a-property",
    ),
    pytest.param(("admin.label.Create", "dom0", "teal", "0x008080"), "", id="label-made"),
    pytest.param(
        ("admin.vm.Create.StandaloneVM", "dom0", "", "name=alone label=red"),
        "domain-add, alone domain-tag-add:created-by-dom0, alone domain-create-on-disk",
        id="create",
    ),
    pytest.param(
        ("admin.vm.Create.RemoteVM", "dom0", "", "name=far label=red"),
        "domain-add, far domain-tag-add:created-by-dom0",
        id="create-remote",
    ),
    pytest.param(
        ("admin.vm.Create.DispVM", "dom0", "web-dvm", "name=d label=red"),
        "domain-add, d domain-create-on-disk",
        id="create-disposable-with-copied-tags",
    ),
    pytest.param(("admin.vm.Create.AppVM", "dom0", "none-such", "name=x label=red"), "", id="create-refused"),
    pytest.param(("admin.vm.Remove", "work"), "domain-pre-delete, domain-delete", id="remove"),
    pytest.param(("admin.vm.Remove", "debian-13"), "domain-pre-delete", id="remove-in-use"),
]


@pytest.mark.parametrize(("words", "want"), SEQUENCES)
def test_call_tells(words: Sequence[str], want: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.call(*words)
        assert ", ".join(house.names()) == want

    visit(tmp_path, guest)


def test_reset_of_a_netvm_tells_the_move(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(SET, "work", "netvm", "sys-net")
        house.told.clear()
        await house.do(RESET, "work", "netvm")
        assert house.told == [
            ("work", "property-pre-reset:netvm", {"name": "netvm", "oldvalue": "sys-net"}),
            (
                "work",
                "property-pre-set:netvm",
                {"name": "netvm", "newvalue": "None", "oldvalue": "sys-net"},
            ),
            ("work", "property-pre-del:netvm", {"name": "netvm", "oldvalue": "sys-net"}),
            ("work", "property-set:netvm", {"name": "netvm", "newvalue": "None", "oldvalue": "sys-net"}),
            ("work", "property-reset:netvm", {"name": "netvm", "oldvalue": "sys-net"}),
            ("work", "property-del:netvm", {"name": "netvm", "oldvalue": "sys-net"}),
        ]

    visit(tmp_path, guest)


def test_no_old_value_where_there_was_none_at_all(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(SET_GLOBAL, "dom0", "default_template", "debian-13")
        assert house.told[-1] == (
            "",
            "property-set:default_template",
            {"name": "default_template", "newvalue": "debian-13"},
        )

    visit(tmp_path, guest)


def test_tag_of_a_gui_qube_does_not_outlive_its_service(tmp_path: Path) -> None:
    """A policy that trusts ``guivm-X`` must not go on to after the default was reset."""

    async def guest(house: House) -> None:
        await house.do(SET_GLOBAL, "dom0", "default_guivm", "sys-net")
        assert "guivm-sys-net" in house.qube("work").tags
        await house.do(RESET_GLOBAL, "dom0", "default_guivm")
        assert "guivm-sys-net" not in house.qube("work").tags

    visit(tmp_path, guest)
