"""Addresses and rules as guests find them in their databases: a qube its own, a netvm those of the qubes
behind it (``spec/domains.md`` 6.6 and 6.7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from itertools import islice

from qubesd.extension import Look
from qubesd.model.firewall import Rule, line
from qubesd.model.lineage import netvm_of
from qubesd.model.network import NETMASK, provides_network
from qubesd.model.properties import read
from qubesd.model.state import Qube

FIREWALL, MAPPED = "/qubes-firewall", "/mapped-ip"
CONNECTED: Mapping[int, str] = {4: "/connected-ips", 6: "/connected-ips6"}
"""By the version of the protocol."""
OWN, LISTS = "own", "lists"
"""The entries of a qube itself, and the lists of those behind it."""
LONGEST = 3072
"""Bytes of one value, as a QubesDB takes them."""

_MOST_RULES = 10_000
"""Numbers of four digits. What the rules beyond would let through is dropped."""
_OTHER_FAMILY = {4: "dst6", 6: "dst4"}
_OWN = {
    "/qubes-mac": "mac",
    "/qubes-ip": "visible_ip",
    "/qubes-netmask": "visible_netmask",
    "/qubes-gateway": "visible_gateway",
    "/qubes-ip6": "visible_ip6",
    "/qubes-gateway6": "visible_gateway6",
}
_GIVEN = {
    "/qubes-netvm-network": "gateway",
    "/qubes-netvm-gateway": "gateway",
    "/qubes-netvm-gateway6": "gateway6",
}
"""What a netvm is to give to the qubes behind it."""


def own(look: Look, qube: Qube) -> Mapping[str, str]:
    """The addresses of the qube itself, and those that it gives, where it has or gives any."""
    return {**dict(_given(look, qube)), **dict(_had(look, qube))}


def addresses(look: Look, qube: Qube) -> list[str]:
    """By which the netvm knows the qube: what the qube sees as its own may be another one."""
    return [str(value) for name in ("ip", "ip6") if (value := read(look, qube, name).value) is not None]


def behind(look: Look, qube: Qube, address: str, rules: Iterable[Rule]) -> Mapping[str, str]:
    """What the netvm finds of a qube with this address, whose rules in force are these."""
    family = ip_address(address).version
    numbered = enumerate(islice(rules, _MOST_RULES))
    found = {
        f"{FIREWALL}/{address}/{number:04}": line(replace(rule, expire=None, comment=None))
        for number, rule in numbered
        if rule.dst_kind != _OTHER_FAMILY[family]
    }
    found[f"{FIREWALL}/{address}/policy"] = "drop"
    if family == 4:
        for what in ("visible-ip", "visible-gateway"):
            value = read(look, qube, what.replace("-", "_")).value
            if value is not None:
                found[f"{MAPPED}/{address}/{what}"] = str(value)
    return found


def connected(all_addresses: Iterable[str]) -> Mapping[str, str]:
    """The lists of the addresses behind a netvm, as many in each as a value can hold."""
    known = sorted(map(ip_address, all_addresses), key=lambda address: (address.version, int(address)))
    return {
        key: _joined([str(address) for address in known if address.version == family])
        for family, key in CONNECTED.items()
    }


def part_of(key: str) -> str:
    """What an entry belongs to: ``OWN``, ``LISTS``, or the address that it is about."""
    first, *below = key.split("/")[1:]
    if f"/{first}" in CONNECTED.values():
        return LISTS
    return below[0] if below and f"/{first}" in (FIREWALL, MAPPED) else OWN


def _had(look: Look, qube: Qube) -> Iterator[tuple[str, str]]:
    if netvm_of(look.system, qube) is None:
        return
    for key, name in _OWN.items():
        value = read(look, qube, name).value
        if value is not None:
            yield key, str(value)
    yield from _name_servers(look, qube, "/qubes")


def _given(look: Look, qube: Qube) -> Iterator[tuple[str, str]]:
    if not provides_network(qube):
        return
    for key, name in _GIVEN.items():
        value = read(look, qube, name).value
        if value is not None:
            yield key, str(value)
    yield "/qubes-netvm-netmask", NETMASK
    yield from _name_servers(look, qube, "/qubes-netvm")


def _name_servers(look: Look, qube: Qube, prefix: str) -> Iterator[tuple[str, str]]:
    servers = str(read(look, qube, "dns").value or "").split()
    for place, server in zip(("primary", "secondary"), servers, strict=False):
        yield f"{prefix}-{place}-dns", server


def _joined(words: list[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= LONGEST else text[: LONGEST + 1].rpartition(" ")[0]
