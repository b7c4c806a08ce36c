"""What a netvm finds of the qubes behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path

import libvirt
import pytest

from qubesd.core.network_entries import LONGEST, connected
from qubesd.errors import QubeError
from qubesd.model.firewall import ACCEPT_ALL, parse
from tests.qubesd.core.power_rig import rig
from tests.qubesd.core.test_databases import FEATURE, KILL, SET, START, found
from tests.qubesd.house import House, visit

RULES, RELOAD = "admin.vm.firewall.Set", "admin.vm.firewall.Reload"
WORK = "10.137.0.4"
"""Of ``work`` in the rig; in the house it is the fourth qube's."""
IP, IP6 = "10.137.0.2", "fd09:24ef:4179::a89:2"
MIXED = (
    "action=accept dst4=1.2.3.4\naction=accept dst6=fd00::1\naction=drop dsthost=a.example\naction=accept\n"
)


def of_netvm(root: Path, netvm: str = "sys-net") -> dict[str, str]:
    """What stands there of others, and of the empty lists nothing."""
    others = ("/qubes-firewall/", "/mapped-ip/", "/connected-ips")
    return {key: value for key, value in found(root, netvm).items() if key.startswith(others) and value}


async def until(root: Path, expected: dict[str, str], netvm: str = "sys-net") -> None:
    """Wait until the netvm finds this of others, and nothing else."""
    try:
        async with asyncio.timeout(10):
            while of_netvm(root, netvm) != expected:
                await asyncio.sleep(0.005)
    except TimeoutError:
        assert of_netvm(root, netvm) == expected


def told(root: Path, address: str, netvm: str = "sys-net") -> int:
    """When the netvm was told last to read the rules."""
    return (root / "run/qubesdb" / netvm / "qubes-firewall" / address).stat().st_mtime_ns


def folders(root: Path, netvm: str) -> dict[str, int]:
    """Those of the addresses, each with what only the very same folder has."""
    return {
        place.name: place.stat().st_ino
        for place in (root / "run/qubesdb" / netvm / "qubes-firewall").iterdir()
    }


def expected(address: str = IP, *rules: str, visible: str | None = None) -> dict[str, str]:
    """Of the one qube with this address, ``rules`` by number."""
    return {
        "/connected-ips": address,
        f"/qubes-firewall/{address}/policy": "drop",
        **{f"/qubes-firewall/{address}/{number:04}": rule for number, rule in enumerate(rules) if rule},
        f"/mapped-ip/{address}/visible-ip": visible or address,
        f"/mapped-ip/{address}/visible-gateway": "10.137.0.3",
    }


def behind(root: Path, guest: Callable[[House], Awaitable[None]], *calls: tuple[str, ...]) -> None:
    """``work`` runs behind ``sys-net``, after these calls."""

    async def story(house: House) -> None:
        for name in ("work", "web-dvm"):
            await house.do(SET, name, "netvm", "sys-net")
        for call in calls:
            await house.do(*call)
        await house.do(START, "work")
        await guest(house)

    visit(root, story)


@pytest.mark.parametrize(
    ("calls", "entries"),
    [
        pytest.param([], expected(IP, "action=accept"), id="no-rules-of-its-own"),
        pytest.param([(RULES, "work", "", "action=drop proto=tcp dstports=80 comment=why not\n")],
                     expected(IP, "action=drop proto=tcp dstports=80-80"), id="without-comment"),
        pytest.param([(RULES, "work", "", MIXED)],
                     expected(IP, "action=accept dst4=1.2.3.4/32", "", "action=drop dsthost=a.example",
                              "action=accept"), id="of-its-family"),
        pytest.param([(RULES, "work", "", "action=accept expire=1\naction=drop\n")],
                     expected(IP, "action=drop"), id="expired"),
        pytest.param([(FEATURE, "work", "net.fake-ip", "192.168.1.2")],
                     expected(IP, "action=accept", visible="192.168.1.2"), id="faked"),
        pytest.param([(SET, "work", "ip", "10.0.0.9")], expected("10.0.0.9", "action=accept"),
                     id="own-address"),
        pytest.param([(FEATURE, "sys-net", "ipv6", "1"), (RULES, "work", "", MIXED)], {
            **expected(IP, "action=accept dst4=1.2.3.4/32", "", "action=drop dsthost=a.example",
                       "action=accept"),
            "/connected-ips6": IP6,
            f"/qubes-firewall/{IP6}/policy": "drop",
            f"/qubes-firewall/{IP6}/0001": "action=accept dst6=fd00::1/128",
            f"/qubes-firewall/{IP6}/0002": "action=drop dsthost=a.example",
            f"/qubes-firewall/{IP6}/0003": "action=accept",
        }, id="both-families"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("when", ["before", "after"])
def test_entries(calls: list[tuple[str, ...]], entries: dict[str, str], when: str, tmp_path: Path) -> None:
    """The same whether it was so when the qube started or is only since then."""

    async def guest(house: House) -> None:
        if when == "before":
            assert of_netvm(tmp_path) == entries
            return
        for call in calls:
            await house.do(*call)
        await until(tmp_path, entries)

    behind(tmp_path, guest, *(calls if when == "before" else []))


def test_qubes_come_and_go(tmp_path: Path) -> None:
    one, other = expected(IP, "action=accept"), expected("10.137.0.4", "action=accept")

    async def guest(house: House) -> None:
        await house.do(START, "web-dvm")
        assert of_netvm(tmp_path) == {**one, **other, "/connected-ips": f"{IP} 10.137.0.4"}
        await house.do(KILL, "work")
        assert of_netvm(tmp_path) == other
        assert not (tmp_path / "run/qubesdb/sys-net/qubes-firewall" / IP).exists()
        await house.do(SET, "web-dvm", "netvm", "")
        await until(tmp_path, {})
        await house.do(SET, "web-dvm", "netvm", "sys-net")
        await until(tmp_path, other)
        await house.do(KILL, "sys-net")
        assert of_netvm(tmp_path) == {}
        await house.do(START, "sys-net")
        assert of_netvm(tmp_path) == other

    behind(tmp_path, guest)


def test_a_qube_moves_to_another_netvm(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(SET, "web-dvm", "provides_network", "True")
        await house.do(START, "web-dvm")
        await house.do(SET, "work", "netvm", "web-dvm")
        moved = {**expected(IP, "action=accept"), f"/mapped-ip/{IP}/visible-gateway": "10.137.0.4"}
        await until(tmp_path, moved, "web-dvm")
        await until(tmp_path, expected("10.137.0.4", "action=accept"))

    behind(tmp_path, guest)


def test_the_netvm_is_told_when_all_is_written(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        first = told(tmp_path, IP)
        folder = tmp_path / "run/qubesdb/sys-net/qubes-firewall" / IP
        assert all(place.stat().st_mtime_ns <= first for place in folder.iterdir())
        await house.do(RELOAD, "work")
        async with asyncio.timeout(10):
            while told(tmp_path, IP) == first:
                await asyncio.sleep(0.005)
        assert of_netvm(tmp_path) == expected(IP, "action=accept")

    behind(tmp_path, guest)


def test_who_changes_rules_is_answered_when_they_are_there(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        for rule in ("action=drop", "action=accept dst4=1.2.3.4", "action=accept"):
            await house.do(RULES, "work", "", f"{rule}\n")
            known = of_netvm(tmp_path)[f"/qubes-firewall/{IP}/0000"]
            assert known.startswith(rule)
        before = told(tmp_path, IP)
        await house.do(RELOAD, "work")
        assert told(tmp_path, IP) > before

    behind(tmp_path, guest)


def test_a_rule_that_expires_goes(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        ends = int(time.time()) + 2
        await house.do(RULES, "work", "", f"action=accept expire={ends}\naction=drop\n")
        await until(tmp_path, expected(IP, "action=accept", "action=drop"))
        await until(tmp_path, expected(IP, "action=drop"))
        assert time.time() >= ends

    behind(tmp_path, guest)


def test_an_address_is_of_who_came_first(tmp_path: Path) -> None:
    """Nobody's rules are replaced by taking the same address, and who waited gets it when it is free."""

    async def guest(house: House) -> None:
        await house.do(RULES, "web-dvm", "", "action=drop\n")
        await house.do(SET, "web-dvm", "ip", IP)
        await house.do(START, "web-dvm")
        assert of_netvm(tmp_path) == expected(IP, "action=accept")
        await house.do(RELOAD, "web-dvm")
        await house.do(KILL, "work")
        await until(tmp_path, expected(IP, "action=drop"))

    behind(tmp_path, guest)


def test_rules_that_cannot_be_read_let_nothing_through(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        (tmp_path / "var/lib/qubes/appvms/work/firewall.xml").write_text("<")
        await house.do(RELOAD, "work")
        await until(tmp_path, expected(IP))

    behind(tmp_path, guest)


def test_a_start_that_its_netvm_cannot_be_told_of_fails(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        place = tmp_path / "run/qubesdb/sys-net/qubes-firewall"
        place.rename(tmp_path / "away")
        place.symlink_to(tmp_path / "away")
        with pytest.raises(QubeError, match="the network of qube 'web-dvm' cannot be set up"):
            await house.do(START, "web-dvm")
        assert house.core.running("web-dvm").state == "Halted"
        assert [name.name for name in (tmp_path / "away").iterdir()] == [IP]
        place.unlink()
        await house.do(START, "web-dvm")
        assert of_netvm(tmp_path)["/qubes-firewall/10.137.0.4/policy"] == "drop"

    behind(tmp_path, guest)


def test_a_daemon_that_starts_again_leaves_nothing_old(tmp_path: Path) -> None:
    """Rules that are no more, and qubes that went meanwhile, though their netvm ran on."""

    async def story() -> None:
        outside = libvirt.open("test:///default")
        try:
            async with rig(tmp_path, uri="test:///default") as first:
                await first.core.firewalls.set(first.qube("work"), [parse("action=drop"), *ACCEPT_ALL])
                first.change("vault", netvm="sys-firewall")
                await first.core.durable()
                for name in ("work", "vault"):
                    await first.core.power.start(first.qube(name))
                assert f"/qubes-firewall/{WORK}/0001" in of_netvm(tmp_path, "sys-firewall")
                there = folders(tmp_path, "sys-firewall")
                assert len(there) == 2
            (tmp_path / "var/lib/qubes/appvms/work/firewall.xml").unlink()
            async with rig(tmp_path, uri="test:///default") as second:
                assert folders(tmp_path, "sys-firewall") == there, "what goes on was gone for a while"
                entries = of_netvm(tmp_path, "sys-firewall")
                assert {key: entries[key] for key in entries if f"firewall/{WORK}" in key} == {
                    f"/qubes-firewall/{WORK}/policy": "drop",
                    f"/qubes-firewall/{WORK}/0000": "action=accept",
                }
            for name in ("work", "vault"):
                outside.lookupByUUIDString(second.qube(name).uuid).destroy()
            async with rig(tmp_path, uri="test:///default") as third:
                assert of_netvm(tmp_path, "sys-firewall") == {}
                assert of_netvm(tmp_path, "sys-net")["/connected-ips"] == "10.137.0.3"
                for name in ("sys-firewall", "sys-net"):
                    await third.core.power.kill(third.qube(name))
                for name in ("work", "vault", "sys-firewall", "sys-net"):
                    await third.core.power.lives.forget(third.qube(name))
        finally:
            outside.close()

    asyncio.run(story())


def test_rules_of_an_earlier_run_are_not_those_of_the_next(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(KILL, "work")
        await house.do(RULES, "work", "", "action=drop\n")
        await house.do(START, "work")
        assert of_netvm(tmp_path) == expected(IP, "action=drop")

    behind(tmp_path, guest)


def test_lists_hold_as_much_as_a_value_can() -> None:
    many = [str(IPv4Address(2_000_000_000 + number)) for number in range(1000)]
    lists = connected([*reversed(many), "fd00::2", "fd00::1"])
    assert lists["/connected-ips6"] == "fd00::1 fd00::2"
    words = lists["/connected-ips"].split(" ")
    assert words == many[: len(words)]
    assert LONGEST - 16 < len(lists["/connected-ips"]) <= LONGEST
