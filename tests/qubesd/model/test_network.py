"""Addresses and who may be whose netvm."""

from __future__ import annotations

from typing import Any

import pytest

from qubesd.errors import BadPropertyValue, BadValue, QubeNotStarted
from qubesd.model.properties import GLOBALS, read, table
from qubesd.model.state import Klass
from tests.qubesd.model.views import StillView, qube, world


def read_all(view: StillView, name: str, *properties: str) -> list[Any]:
    return [read(view, view[name], one).value for one in properties]


def test_addresses() -> None:
    view = world()
    assert read_all(view, "work", "ip", "visible_ip", "visible_gateway", "visible_netmask", "gateway") == [
        *("10.137.0.4", "10.137.0.4", "10.137.0.3", "255.255.255.255", None)
    ]
    assert read_all(view, "sys-net", "ip", "gateway", "visible_gateway", "visible_netmask", "dns") == [
        *("10.137.0.2", "10.137.0.2", None, None, "10.139.1.1 10.139.1.2")
    ]
    assert read_all(view, "vault", "ip", "visible_ip", "dns", "ip6", "visible_netmask") == [None] * 5


def test_a_disposable_goes_by_its_own_number() -> None:
    view = world().put("disp7", netvm="sys-net").feature("sys-net", "ipv6", "1")
    assert read_all(view, "disp7", "ip", "ip6") == ["10.138.0.7", "fd09:24ef:4179::a8a:7"]


@pytest.mark.parametrize(
    ("qid", "ip"),
    [
        (1, "10.137.0.1"),
        (254, "10.137.0.254"),
        (255, "10.137.1.1"),
        (508, "10.137.1.254"),
        (509, "10.137.2.1"),
        (10000, "10.137.39.94"),
    ],
)
def test_numbers_spread_over_blocks(qid: int, ip: str) -> None:
    view = world()
    owner = qube("other", qid, Klass.APP, template="debian", netvm="sys-net")
    assert read(view, owner, "ip").value == ip


def test_ipv6_where_the_feature_is_true_along_the_netvms() -> None:
    view = world().feature("sys-net", "ipv6", "1")
    names = ("ip6", "visible_ip6", "visible_gateway6")
    assert read_all(view, "work", *names) == [
        *("fd09:24ef:4179::a89:4", "fd09:24ef:4179::a89:4", "fd09:24ef:4179::a89:3")
    ]
    assert read_all(view, "sys-net", "gateway6", "visible_gateway6") == ["fd09:24ef:4179::a89:2", None]
    off = view.feature("work", "ipv6", "")
    assert read_all(off, "work", *names) == [None, None, None]
    given = view.put("sys-firewall", ip6="fd00::7")
    assert read_all(given, "work", "visible_gateway6") == ["fd00::7"]


def test_fake_addresses() -> None:
    view = (
        world()
        .feature("work", "net.fake-ip", "192.168.1.128")
        .feature("work", "net.fake-gateway", "192.168.1.1")
        .feature("work", "net.fake-netmask", "255.255.255.0")
    )
    assert read_all(view, "work", "ip", "visible_ip", "visible_gateway", "visible_netmask") == [
        *("10.137.0.4", "192.168.1.128", "192.168.1.1", "255.255.255.0")
    ]


@pytest.mark.parametrize("text", ["", "x", "1.2.3.4'/><a>", "1.2.3", "::1"])
def test_a_fake_address_that_is_none_is_passed_over(text: str) -> None:
    view = world().feature("work", "net.fake-ip", text)
    assert read_all(view, "work", "visible_ip") == ["10.137.0.4"]


def test_an_explicit_address_shows_without_network() -> None:
    view = world().put("vault", ip="1.2.3.4")
    assert read_all(view, "vault", "ip", "visible_ip") == ["1.2.3.4", "1.2.3.4"]


@pytest.mark.parametrize(
    ("view", "owner", "value", "error"),
    [
        pytest.param(world(), "vault", "work", BadValue, id="gives-no-network"),
        pytest.param(world(), "vault", "debian", BadValue, id="template"),
        pytest.param(world(), "vault", "dom0", BadPropertyValue, id="dom0"),
        pytest.param(world(), "vault", "far", BadPropertyValue, id="remote"),
        pytest.param(world(), "vault", "nosuch", BadPropertyValue, id="unknown"),
        pytest.param(world(), "vault", "vault", BadValue, id="itself"),
        pytest.param(world(), "sys-net", "sys-net", BadValue, id="itself-giving-network"),
        pytest.param(world(), "sys-net", "sys-firewall", BadValue, id="loop"),
        pytest.param(world().up("work"), "work", "sys-net", QubeNotStarted, id="running-behind-halted"),
        pytest.param(
            world().up("work", state="Paused"), "work", "sys-net", QubeNotStarted, id="paused-behind-halted"
        ),
    ],
)
def test_netvm_refused(view: StillView, owner: str, value: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        table(view[owner].klass)["netvm"].check(view, view[owner], value)


@pytest.mark.parametrize(
    ("view", "value"),
    [
        pytest.param(world(), "sys-net", id="halted"),
        pytest.param(world(), None, id="none"),
        pytest.param(world().up("work"), None, id="running-none"),
        pytest.param(world().up("work", "sys-net"), "sys-net", id="both-run"),
    ],
)
def test_netvm(view: StillView, value: str | None) -> None:
    assert table(Klass.APP)["netvm"].check(view, view["work"], value) == value


@pytest.mark.parametrize(
    ("view", "value", "error"),
    [
        pytest.param(world(), "nosuch", BadPropertyValue, id="unknown"),
        pytest.param(world(), "dom0", BadPropertyValue, id="dom0"),
        pytest.param(world(), "work", BadPropertyValue, id="gives-no-network"),
        pytest.param(
            world().put("vault", provides_network=True), "vault", BadPropertyValue, id="follows-itself"
        ),
        pytest.param(
            world().put("vault", provides_network=True).put("sys-net", netvm="vault"),
            "sys-firewall",
            BadPropertyValue,
            id="behind-a-follower",
        ),
        pytest.param(world().up("vault"), "sys-net", QubeNotStarted, id="followers-run"),
    ],
)
def test_default_netvm_refused(view: StillView, value: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        GLOBALS["default_netvm"].check(view, None, value)


def test_default_netvm() -> None:
    view = world().up("work")
    assert GLOBALS["default_netvm"].check(view, None, "sys-firewall") == "sys-firewall"
    followed = view.globally(default_netvm="sys-net")
    assert read_all(followed, "vault", "netvm", "visible_gateway") == ["sys-net", "10.137.0.2"]
    assert read_all(followed, "debian", "netvm") == [None]


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(world(), id="netvm-of-another"),
        pytest.param(world().put("sys-firewall", netvm=None).globally(default_netvm="sys-net"), id="default"),
    ],
)
def test_network_in_use_is_not_withdrawn(view: StillView) -> None:
    with pytest.raises(BadValue):
        table(Klass.APP)["provides_network"].check(view, view["sys-net"], False)


def test_network_not_in_use_is_withdrawn() -> None:
    view = world().put("sys-firewall", netvm=None)
    assert table(Klass.APP)["provides_network"].check(view, view["sys-net"], False) is False


def test_a_loop_that_should_not_be_ends_a_walk() -> None:
    view = world().put("sys-net", netvm="sys-firewall")
    assert read_all(view, "work", "ip6") == [None]
