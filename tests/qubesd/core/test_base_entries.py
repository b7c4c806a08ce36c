"""What every guest finds, by the kind of its qube, and that it stays so while it runs."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from qubesd.core.base_entries import entries
from tests.qubesd.core.test_databases import FEATURE, SET, START, found, settled
from tests.qubesd.house import House, visit

ZONE = "Europe/Berlin"
IP6 = "fd09:24ef:4179::a89:"
GLOBAL = "admin.property.Set"

BEHIND = ((SET, "work", "netvm", "sys-net"),)
NET6 = (*BEHIND, (FEATURE, "sys-net", "ipv6", "1"))
FAKED = (
    *BEHIND,
    (FEATURE, "work", "net.fake-ip", "192.168.1.2"),
    (FEATURE, "work", "net.fake-gateway", "192.168.1.1"),
    (FEATURE, "debian-13", "net.fake-netmask", "255.255.255.0"),
)
OWN = (
    *BEHIND,
    (SET, "work", "ip", "10.0.0.9"),
    (SET, "work", "mac", "00:16:3e:5e:6c:01"),
    (SET, "sys-net", "ip", "10.0.0.1"),
)
UNHIDDEN = ((FEATURE, "debian-13", "anon-timezone", "1"), (FEATURE, "work", "anon-timezone"))
CHAINED = ((SET, "web-dvm", "provides_network", "True"), (SET, "web-dvm", "netvm", "sys-net"))
ALONE = (("admin.vm.Create.StandaloneVM", "dom0", "", "name=alone label=red"),)
NAMED = (("admin.vm.Create.DispVM", "dom0", "web-dvm", "name=named label=red"),)
"""The house has ``debian-13`` (1), ``work`` (2), ``sys-net`` (3), ``web-dvm`` (4), by qid."""


@pytest.mark.parametrize(
    ("qube", "calls", "expected"),
    [
        pytest.param("work", (), {
            "/name": "work", "/type": "AppVM", "/qubes-vm-type": "AppVM", "/default-user": "user",
            "/qubes-vm-updateable": "False", "/qubes-vm-persistence": "rw-only", "/qubes-debug-mode": "0",
            "/qubes-base-template": "debian-13", "/qubes-timezone": ZONE,
        }, id="app"),
        pytest.param("debian-13", (), {
            "/name": "debian-13", "/type": "TemplateVM", "/qubes-vm-type": "TemplateVM",
            "/default-user": "user", "/qubes-vm-updateable": "True", "/qubes-vm-persistence": "full",
            "/qubes-debug-mode": "0", "/qubes-base-template": "", "/qubes-timezone": ZONE,
        }, id="template"),
        pytest.param("alone", ALONE, {
            "/name": "alone", "/type": "StandaloneVM", "/qubes-vm-type": "AppVM", "/default-user": "user",
            "/qubes-vm-updateable": "True", "/qubes-vm-persistence": "full", "/qubes-debug-mode": "0",
            "/qubes-base-template": "", "/qubes-timezone": ZONE,
        }, id="standalone"),
        pytest.param("named", NAMED, {
            "/name": "named", "/type": "DispVM", "/qubes-vm-type": "AppVM", "/default-user": "user",
            "/qubes-vm-updateable": "False", "/qubes-vm-persistence": "none", "/qubes-debug-mode": "0",
            "/qubes-base-template": "web-dvm", "/qubes-timezone": ZONE,
        }, id="disposable"),
        pytest.param("sys-net", (), {
            "/qubes-vm-type": "NetVM", "/qubes-netvm-network": "10.137.0.3",
            "/qubes-netvm-gateway": "10.137.0.3", "/qubes-netvm-netmask": "255.255.255.255",
            "/qubes-netvm-primary-dns": "10.139.1.1", "/qubes-netvm-secondary-dns": "10.139.1.2",
            "/qubes-ip": None, "/qubes-mac": None, "/qubes-netvm-gateway6": None,
        }, id="netvm"),
        pytest.param("sys-net", ((FEATURE, "sys-net", "ipv6", "1"),), {
            "/qubes-netvm-gateway6": f"{IP6}3", "/qubes-ip6": None,
        }, id="netvm-with-ip6"),
        pytest.param("web-dvm", CHAINED, {
            "/qubes-vm-type": "ProxyVM", "/qubes-netvm-gateway": "10.137.0.4", "/qubes-ip": "10.137.0.4",
            "/qubes-gateway": "10.137.0.3",
        }, id="netvm-behind-another"),
        pytest.param("work", BEHIND, {
            "/qubes-mac": "00:16:3e:5e:6c:00", "/qubes-ip": "10.137.0.2",
            "/qubes-netmask": "255.255.255.255", "/qubes-gateway": "10.137.0.3",
            "/qubes-primary-dns": "10.139.1.1", "/qubes-secondary-dns": "10.139.1.2",
            "/qubes-ip6": None, "/qubes-gateway6": None, "/qubes-netvm-gateway": None,
        }, id="behind-a-netvm"),
        pytest.param("work", NET6, {
            "/qubes-ip6": f"{IP6}2", "/qubes-gateway6": f"{IP6}3",
        }, id="behind-a-netvm-with-ip6"),
        pytest.param("work", FAKED, {
            "/qubes-ip": "192.168.1.2", "/qubes-gateway": "192.168.1.1", "/qubes-netmask": "255.255.255.0",
        }, id="faked-addresses"),
        pytest.param("work", OWN, {
            "/qubes-ip": "10.0.0.9", "/qubes-gateway": "10.0.0.1", "/qubes-mac": "00:16:3e:5e:6c:01",
        }, id="own-addresses"),
        pytest.param("work", ((SET, "work", "debug", "True"),), {"/qubes-debug-mode": "1"}, id="debug"),
        pytest.param("work", ((SET, "debian-13", "default_user", "root"),), {"/default-user": "root"},
                     id="user-of-the-template"),
        pytest.param("work", ((SET, "work", "default_user", ""),), {"/default-user": ""}, id="no-user"),
        pytest.param("work", ((FEATURE, "work", "anon-timezone", "1"),), {"/qubes-timezone": None},
                     id="no-zone"),
        pytest.param("work", ((FEATURE, "debian-13", "anon-timezone", "1"),), {"/qubes-timezone": None},
                     id="no-zone-by-the-template"),
        pytest.param("work", UNHIDDEN, {"/qubes-timezone": ZONE}, id="a-zone-after-all"),
    ],
)  # fmt: skip
def test_entries(
    qube: str, calls: tuple[tuple[str, ...], ...], expected: dict[str, str | None], tmp_path: Path
) -> None:
    """All of what is said of a qube where it is named in full, else those entries."""

    async def guest(house: House) -> None:
        for call in calls:
            await house.do(*call)
        now = entries(house.core, house.qube(qube), ZONE)
        if "/name" in expected:
            assert now == expected
        else:
            assert {key: now.get(key) for key in expected} == expected

    visit(tmp_path, guest)


def test_a_host_that_knows_no_zone_tells_of_none(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        assert "/qubes-timezone" not in entries(house.core, house.qube("work"), None)

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    ("call", "key", "value"),
    [
        pytest.param((SET, "work", "debug", "True"), "/qubes-debug-mode", "1", id="its-own"),
        pytest.param((SET, "debian-13", "default_user", "root"), "/default-user", "root", id="template"),
        pytest.param((SET, "work", "netvm", ""), "/qubes-gateway", None, id="no-netvm"),
        pytest.param((GLOBAL, "dom0", "default_netvm", "web-dvm"), "/qubes-gateway", "10.137.0.4",
                     id="default"),
        pytest.param((SET, "sys-net", "ip", "10.0.0.1"), "/qubes-gateway", "10.0.0.1", id="netvms-address"),
        pytest.param((FEATURE, "sys-net", "ipv6", "1"), "/qubes-ip6", f"{IP6}2", id="netvms-feature"),
        pytest.param((FEATURE, "debian-13", "net.fake-ip", "1.2.3.4"), "/qubes-ip", "1.2.3.4",
                     id="templates-feature"),
    ],
)  # fmt: skip
def test_entries_follow_what_changes(
    call: tuple[str, ...], key: str, value: str | None, tmp_path: Path
) -> None:
    async def guest(house: House) -> None:
        await house.do(SET, "web-dvm", "provides_network", "True")
        await house.do(SET, "web-dvm", "netvm", "")
        await house.do(GLOBAL, "dom0", "default_netvm", "sys-net")
        for name in ("work", "web-dvm"):
            await house.do(START, name)
        before = found(tmp_path, "work")
        assert before["/qubes-gateway"] == "10.137.0.3"
        await house.do(*call)
        await settled()
        now = found(tmp_path, "work")
        assert now.get(key) == value
        assert now["/qubes-random-seed"] == before["/qubes-random-seed"]

    visit(tmp_path, guest)


def test_each_run_has_its_seed_and_begins_with_empty_lists(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        seeds = set()
        for _ in range(2):
            await house.do(START, "work")
            seed = found(tmp_path, "work")["/qubes-random-seed"]
            assert len(base64.b64decode(seed, validate=True)) == 64
            seeds.add(seed)
            for key in ("qubes-block-devices", "qubes-usb-devices"):
                folder = tmp_path / "run/qubesdb/work" / key
                assert list(folder.iterdir()) == []
                (folder / "sda").mkdir()
            await house.do("admin.vm.Kill", "work")
        assert len(seeds) == 2

    visit(tmp_path, guest)
