"""What else changes with a property, and whom that tells (``spec/events.md`` 4, ``spec/event-sequences.md``).

Each function adds its steps to the draft of a change whose value is already in it; ``draft.keeper``
still shows the state before. The events are those of stock, in its order: where stock tells nobody (as a
Reset of the keyboard layout), clients are known to cope, and where it tells too many (a template never
follows the default netvm) they do not miss it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from qubesd.core.draft import Draft
from qubesd.core.features import drop_feature, put_feature
from qubesd.core.power_events import DomainQdbCreate, NetDomainConnect
from qubesd.core.tags import TRACKED, drop_tag, track
from qubesd.core.told import as_told
from qubesd.events import PropertyPreSet, PropertyReset, PropertySet
from qubesd.model import volumes
from qubesd.model.lineage import follows_default_netvm, netvm_of
from qubesd.model.network import provides_network
from qubesd.model.properties import read, table
from qubesd.model.state import Klass, Qube, Value

CLOCK = "service.clocksync"

FROM_TEMPLATE = frozenset(
    (
        "default_user",
        "kernel",
        "kernelopts",
        "management_dispvm",
        "maxmem",
        "memory",
        "qrexec_timeout",
        "shutdown_timeout",
        "vcpus",
    )
)
"""Properties that an AppVM takes from its template unless it has its own."""


def of_set(draft: Draft, owner: str, name: str, old: Value, new: Value) -> None:
    """After a qube's property got a value of its own."""
    _of_either(draft, owner, name, new)
    if name in ("label", "template_for_dispvms"):
        draft.tell(PropertyReset(owner, "icon"))
    elif name == "provides_network":
        if new:
            put_feature(draft, owner, "servicevm", "1")
        else:
            drop_feature(draft, owner, "servicevm")
        for computed in ("icon", "gateway", "gateway6"):
            draft.tell(PropertyReset(owner, computed))
    elif name == "keyboard_layout":
        _tell_clients_of_layout(draft, owner)
    elif name == "template":
        _replace_snapshots(draft, owner)
    elif name == "netvm":
        of_new_netvm(draft, owner, new)


def of_reset(draft: Draft, owner: str, name: str, old: Value, new: Value) -> None:
    """After a qube's property went back to its default."""
    _of_either(draft, owner, name, new)
    if name == "provides_network":
        drop_feature(draft, owner, "servicevm")
        draft.tell(PropertyReset(owner, "icon"))
    elif name == "template_for_dispvms" and old != new:
        draft.tell(PropertyReset(owner, "icon"))


def of_new_netvm(draft: Draft, owner: str, new: Value) -> None:
    """After a qube's netvm changed, whether by itself or with the default: a running one is joined to it."""
    if isinstance(new, str) and draft.running(owner).state != "Halted":
        draft.tell(DomainQdbCreate(owner))
        draft.tell(NetDomainConnect(new, owner))


def of_global_set(draft: Draft, name: str, old: Value, new: Value) -> None:
    """After a global property got a value of its own."""
    if name in ("default_guivm", "default_audiovm"):
        _move_default(draft, name.removeprefix("default_"), old, new)
    elif name in _GLOBAL:
        _GLOBAL[name](draft, old, new)


def of_global_reset(draft: Draft, name: str, old: Value, new: Value) -> None:
    """After a global property went back to its default.

    Stock leaves the tags of a default GUI or audio qube alone then. No tag that says who serves a qube may
    outlive that service, so the old ones go; new ones come, as in stock, only with the next Set.
    """
    if name in ("default_guivm", "default_audiovm"):
        tracked = name.removeprefix("default_")
        if old != new:
            for qube in _with_default(draft, tracked):
                drop_tag(draft, qube.name, f"{tracked}-{old}")
    elif name in _GLOBAL and (name != "default_netvm" or old != new):
        _GLOBAL[name](draft, old, new)


def _of_either(draft: Draft, owner: str, name: str, new: Value) -> None:
    qube = draft.system.qubes[owner]
    if name in TRACKED:
        track(draft, owner, name, new)
    elif name in ("ip", "ip6"):
        _tell_address(draft, qube, "6" if name == "ip6" else "")
    elif name in FROM_TEMPLATE and qube.klass is Klass.TEMPLATE:
        for other in draft.system.in_order():
            of_it = other.klass is Klass.APP and other.properties.get("template") == owner
            if of_it and name not in other.properties:
                draft.tell(PropertyReset(other.name, name))


def _tell_address(draft: Draft, qube: Qube, family: str) -> None:
    draft.tell(PropertyReset(qube.name, f"visible_ip{family}"))
    if provides_network(qube):
        draft.tell(PropertyReset(qube.name, f"gateway{family}"))
        for other in draft.system.in_order():
            netvm = netvm_of(draft.system, other)
            if netvm is not None and netvm.name == qube.name:
                draft.tell(PropertyReset(other.name, f"visible_gateway{family}"))


def _tell_clients_of_layout(draft: Draft, owner: str) -> None:
    for client in _with_default(draft, "keyboard_layout"):
        if "guivm" in table(client.klass) and read(draft, client, "guivm").value == owner:
            old = read(draft.keeper, client, "keyboard_layout").value
            draft.tell(PropertyReset(client.name, "keyboard_layout", as_told(old)))


def _replace_snapshots(draft: Draft, owner: str) -> None:
    """Let the volumes that are snapshots of a template's follow the new one, the disposables' as well."""
    qubes = [draft.system.qubes[owner]]
    qubes += [qube for qube in draft.system.in_order() if qube.properties.get("template") == owner]
    for qube in qubes:
        draft.put(replace(qube, volumes=volumes.follow_template(draft, qube)))


def _move_default(draft: Draft, name: str, old: Value, new: Value) -> None:
    for qube in _with_default(draft, name):
        track(draft, qube.name, name, new)
        draft.tell(PropertySet(qube.name, name, as_told(old), as_told(new)))


def _move_default_netvm(draft: Draft, old: Value, new: Value) -> None:
    followers = [qube.name for qube in draft.system.in_order() if follows_default_netvm(qube)]
    for name in followers:
        draft.tell(PropertyPreSet(name, "netvm", as_told(old), as_told(new)))
    for name in followers:
        if old != new:
            of_new_netvm(draft, name, new)
            draft.tell(PropertySet(name, "netvm", as_told(old), as_told(new)))
        draft.tell(PropertyReset(name, "netvm", as_told(old)))


def _move_default_dispvm(draft: Draft, old: Value, new: Value) -> None:
    for qube in _with_default(draft, "default_dispvm"):
        if qube.klass is not Klass.DISPOSABLE:
            draft.tell(PropertyReset(qube.name, "default_dispvm", as_told(old)))


def _move_clock(draft: Draft, old: Value, new: Value) -> None:
    if isinstance(new, str):
        put_feature(draft, new, CLOCK, "1")
    if isinstance(old, str) and old != new:
        drop_feature(draft, old, CLOCK)


def _with_default(draft: Draft, name: str) -> Iterator[Qube]:
    """The qubes, in list order, that have the property and no value of their own for it."""
    for qube in draft.system.in_order():
        if name in table(qube.klass) and name not in qube.properties:
            yield qube


_GLOBAL: dict[str, Callable[[Draft, Value, Value], None]] = {
    "clockvm": _move_clock,
    "default_dispvm": _move_default_dispvm,
    "default_netvm": _move_default_netvm,
}
