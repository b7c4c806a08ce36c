"""The network of a running qube moves with its property, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qubesd.errors import QubesError
from qubesd.virt.hypervisor import Hypervisor, Interface
from tests.qubesd.house import House, visit

SET, RESET = "admin.vm.property.Set", "admin.vm.property.Reset"
SET_GLOBAL = "admin.property.Set"


class Plugs:
    """A hypervisor that notes what is plugged where, and has nothing to plug into in the netvms
    ``broken``."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self.story: list[str] = []
        self.broken: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hypervisor, name)

    async def attach(self, uuid: str, interface: Interface) -> None:
        if interface.backend in self.broken:
            raise QubesError(f"nothing can be plugged into {interface.backend!r}")
        await self._hypervisor.attach(uuid, interface)
        self.story.append(f"plug {interface.ip} {interface.backend}")

    async def detach(self, uuid: str, mac: str) -> None:
        await self._hypervisor.detach(uuid, mac)
        self.story.append("unplug")


async def begin(house: House) -> Plugs:
    """``work`` runs behind ``sys-net``; ``web-dvm`` could be its netvm as well and runs."""
    plugs = Plugs(house.core.hypervisor)
    house.core.hypervisor = plugs
    await house.do(SET, "web-dvm", "provides_network", "True")
    await house.do(SET, "web-dvm", "netvm", "")
    await house.do(SET, "work", "netvm", "sys-net")
    await house.do("admin.vm.Start", "work")
    await house.do("admin.vm.Start", "web-dvm")
    house.told.clear()
    plugs.story.clear()
    return plugs


@pytest.mark.parametrize(
    ("words", "want"),
    [
        pytest.param((SET, "work", "netvm", "web-dvm"), ["unplug", "plug 10.137.0.2 web-dvm"], id="moved"),
        pytest.param((SET, "work", "netvm", ""), ["unplug"], id="to-none"),
        pytest.param((RESET, "work", "netvm"), ["unplug"], id="to-a-default-of-none"),
        pytest.param((SET, "work", "memory", "500"), [], id="something-else"),
    ],
)
def test_interface_moves(words: Sequence[str], want: list[str], tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        plugs = await begin(house)
        await house.do(*words)
        assert plugs.story == want

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    ("words", "want"),
    [
        pytest.param(
            (SET, "work", "netvm", "web-dvm"),
            [
                "work property-pre-set:netvm",
                "work domain-qdb-create",
                "web-dvm net-domain-connect",
                "work property-set:netvm",
            ],
            id="set",
        ),
        pytest.param(
            (SET, "work", "netvm", ""), ["work property-pre-set:netvm", "work property-set:netvm"], id="none"
        ),
        pytest.param(
            (SET, "vault", "netvm", "web-dvm"),
            ["vault property-pre-set:netvm", "vault property-set:netvm"],
            id="halted",
        ),
        pytest.param(
            (RESET, "work", "netvm"),
            [
                "work property-pre-reset:netvm",
                "work property-pre-set:netvm",
                "work property-pre-del:netvm",
                "work domain-qdb-create",
                "web-dvm net-domain-connect",
                "work property-set:netvm",
                "work property-reset:netvm",
                "work property-del:netvm",
            ],
            id="reset",
        ),
    ],
)
def test_new_netvm_hears_of_its_client(words: Sequence[str], want: list[str], tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=vault label=red")
        await begin(house)
        await house.do(SET_GLOBAL, "dom0", "default_netvm", "web-dvm")
        house.told.clear()
        await house.do(*words)
        clients = [keys["vm"] for _, name, keys in house.told if name == "net-domain-connect"]
        assert house.names() == want
        assert clients == ["work"] * len(clients)

    visit(tmp_path, guest)


def test_nothing_changes_where_the_interface_cannot_be_plugged(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        plugs = await begin(house)
        plugs.broken = {"web-dvm"}
        before = house.core.system
        assert await house.call(SET, "work", "netvm", "web-dvm") == "QubesException"
        assert house.core.system is before
        assert plugs.story[-1] == "plug 10.137.0.2 sys-net"
        assert house.told == []

    visit(tmp_path, guest)


def test_refused_netvm_leaves_the_interface_alone(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        plugs = await begin(house)
        await house.do("admin.vm.Kill", "web-dvm")
        assert await house.call(SET, "work", "netvm", "web-dvm") == "QubesVMNotStartedError"
        assert plugs.story == []

    visit(tmp_path, guest)


def test_all_that_follow_the_default_move_with_it_or_none(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        plugs = await begin(house)
        await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=other label=red")
        await house.do("admin.vm.Start", "other")
        await house.do(RESET, "work", "netvm")
        plugs.story.clear()
        await house.do(SET_GLOBAL, "dom0", "default_netvm", "sys-net")
        assert plugs.story == ["plug 10.137.0.5 sys-net", "plug 10.137.0.2 sys-net"]
        plugs.broken = {"web-dvm"}
        assert await house.call(SET_GLOBAL, "dom0", "default_netvm", "web-dvm") == "QubesException"
        assert house.core.system.properties["default_netvm"] == "sys-net"
        assert plugs.story[-1] == "plug 10.137.0.5 sys-net"

    visit(tmp_path, guest)
