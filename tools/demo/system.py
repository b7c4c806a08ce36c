"""The demo system, made by dom0's own Admin API calls: no way in but the one that every administrator has."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from broker import client
from tools.demo.callers import listed

TEMPLATE = "debian-12"
UNSHARED_TEMPLATE = "fedora-41"
NETVM = "sys-net"
UNSHARED_NETVM = "sys-lab"
COMPLETE = "demo-complete"
"""The feature that dom0 gets when all of it is there; without it, what is missing is made."""


@dataclass(frozen=True, slots=True)
class DemoQube:
    """A qube to make; ``settings`` are properties by name, an empty value meaning none."""

    name: str
    label: str
    tags: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()


ALICES = "managed-by-alice"
BOBS = "managed-by-bob"
OPERATORS = "operator"
TEAM = "team-a"
_NETWORK = (("provides_network", "True"), ("netvm", ""))
TEMPLATES = (DemoQube(TEMPLATE, "black", ("shared-tpl",)), DemoQube(UNSHARED_TEMPLATE, "black"))
QUBES_TO_MAKE = (
    DemoQube(NETVM, "red", ("shared-net",), _NETWORK),
    DemoQube(UNSHARED_NETVM, "red", settings=_NETWORK),
    DemoQube("alice", "green", (OPERATORS, TEAM)),
    DemoQube("bob", "blue", (OPERATORS, TEAM)),
    DemoQube("alice-mail", "green", (ALICES,)),
    DemoQube("alice-bank", "yellow", (ALICES,)),
    DemoQube("bob-build", "blue", (BOBS,)),
    DemoQube("team-web", "orange", (ALICES, BOBS, TEAM)),
    DemoQube("team-wiki", "orange", (ALICES, BOBS, TEAM)),
    DemoQube("vault", "black", settings=(("netvm", ""),)),
)


def load(public: Path) -> bool:
    """Make what is missing of the demo system; true if there was anything to do.

    Args:
        public: dom0's socket.
    """
    if _is_complete(public):
        return False
    there = {row["name"] for row in listed(public)}
    for qube in TEMPLATES:
        _make(public, "TemplateVM", qube, "", there)
    client.call(public, "admin.property.Set", argument="default_template", payload=TEMPLATE.encode())
    for qube in QUBES_TO_MAKE:
        _make(public, "AppVM", qube, TEMPLATE, there)
        if qube.name == NETVM:
            client.call(public, "admin.property.Set", argument="default_netvm", payload=NETVM.encode())
    client.call(public, "admin.vm.feature.Set", "dom0", COMPLETE, b"1")
    return True


def _is_complete(public: Path) -> bool:
    try:
        return client.call(public, "admin.vm.feature.Get", "dom0", COMPLETE) == b"1"
    except client.CallError as error:
        if error.kind != "QubesFeatureNotFoundError":
            raise
        return False


def _make(public: Path, klass: str, qube: DemoQube, template: str, there: Set[str]) -> None:
    """Make the qube unless it is ``there``, and whatever else of it is missing."""
    if qube.name not in there:
        payload = f"name={qube.name} label={qube.label}".encode()
        client.call(public, f"admin.vm.Create.{klass}", argument=template, payload=payload)
    for name, value in qube.settings:
        client.call(public, "admin.vm.property.Set", qube.name, name, value.encode())
    for tag in qube.tags:
        client.call(public, "admin.vm.tag.Set", qube.name, tag)
