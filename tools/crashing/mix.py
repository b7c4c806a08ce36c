"""The writes that are made amid the kills, and how what they wrote is read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from broker.client import CallError, call
from tools.crashing.ledger import ABSENT, QUBE, THERE, Ledger, Thing, Value

TEMPLATE = "template"
DISPOSABLE_TEMPLATE = "dvm"
MOST_QUBES = 6
"""A writer that has so many removes before it makes more."""

_FEATURES = ("menu-items", "gui", "service.crond")
_TAGS = ("blue", "office", "old")
_PROPERTIES = {"memory": 400, "maxmem": 4_000, "qrexec_timeout": 60, "vcpus": 2}
"""Whole numbers, each with about its default."""


@dataclass(frozen=True, slots=True)
class Write:
    """One call, and what it changes where it is acknowledged."""

    service: str
    target: str = "dom0"
    argument: str = ""
    payload: bytes = b""
    changes: Mapping[Thing, Value] = field(default_factory=dict)


@dataclass(slots=True)
class Site:
    """Where a writer is: the daemon's socket, its own names, and what it knows of them."""

    socket: Path
    owner: str
    random: Random
    ledger: Ledger = field(default_factory=Ledger)

    def qube(self) -> str:
        return self.random.choice(self.ledger.qubes())

    def known(self, *thing: str) -> Thing:
        """The thing, read first where nothing was written to it yet."""
        if not self.ledger.knows(thing):
            self.ledger.observe(thing, read(self.socket, thing))
        return thing

    def value(self, *thing: str) -> Value:
        """What the thing is now, read where more than one value is possible."""
        if len(self.ledger.may(thing)) != 1:
            self.ledger.observe(thing, read(self.socket, thing))
        (value,) = self.ledger.may(thing)
        return value


def create(site: Site) -> Write:
    """A new qube, of one of the three classes that are made by name."""
    taken = {thing[1] for thing in site.ledger.things()}
    name = next(f"{site.owner}-{n}" for n in range(len(taken) + 1) if f"{site.owner}-{n}" not in taken)
    klass, template = site.random.choice(
        (("AppVM", TEMPLATE), ("StandaloneVM", ""), ("TemplateVM", ""), ("DispVM", DISPOSABLE_TEMPLATE))
    )
    payload = f"name={name} label=red".encode("ascii")
    return Write(f"admin.vm.Create.{klass}", "dom0", template, payload, {(QUBE, name): THERE})


def remove(site: Site) -> Write:
    name = site.qube()
    return Write("admin.vm.Remove", name, changes={(QUBE, name): ABSENT})


def create_disposable(site: Site) -> Write:
    """Its name is in the answer only; what is made without one is found after the kill."""
    return Write("admin.vm.CreateDisposable", DISPOSABLE_TEMPLATE)


def set_property(site: Site) -> Write:
    name, (prop, least) = site.qube(), site.random.choice([*_PROPERTIES.items()])
    value = str(least + site.random.randrange(8))
    thing = site.known("property", name, prop)
    return Write("admin.vm.property.Set", name, prop, value.encode("ascii"), {thing: value})


def set_feature(site: Site) -> Write:
    name, feature = site.qube(), site.random.choice(_FEATURES)
    thing = site.known("feature", name, feature)
    if site.random.random() < 0.3:
        return Write("admin.vm.feature.Remove", name, feature, changes={thing: ABSENT})
    value = f"value {site.random.randrange(1_000)}"
    return Write("admin.vm.feature.Set", name, feature, value.encode("ascii"), {thing: value})


def set_tag(site: Site) -> Write:
    name, tag = site.qube(), site.random.choice(_TAGS)
    thing = site.known("tag", name, tag)
    there = site.random.random() < 0.6
    service = "admin.vm.tag.Set" if there else "admin.vm.tag.Remove"
    return Write(service, name, tag, changes={thing: THERE if there else ABSENT})


def resize(site: Site) -> Write:
    """A private volume in its file and in the system, both at once."""
    name = site.qube()
    thing = site.known("volume", name, "size")
    size = (1 << 30) + site.random.randrange(1, 64) * (1 << 20)
    return Write("admin.vm.volume.Resize", name, "private", str(size).encode("ascii"), {thing: str(size)})


def keep_revisions(site: Site) -> Write:
    name = site.qube()
    thing = site.known("volume", name, "revisions_to_keep")
    number = str(site.random.randrange(1, 6))
    service = "admin.vm.volume.Set.revisions_to_keep"
    return Write(service, name, "private", number.encode("ascii"), {thing: number})


def clear(site: Site) -> Write:
    """Refused for a disposable, which has no content of its own."""
    return Write("admin.vm.volume.Clear", site.qube(), "private")


def snapshot(site: Site) -> Write:
    return Write("admin.vm.volume.Snapshot", site.qube(), "private")


def clone(site: Site) -> Write:
    """Another qube's private volume, by a token; refused for a disposable on either side."""
    source, name = site.qube(), site.qube()
    thing, size = site.known("volume", name, "size"), site.value("volume", source, "size")
    try:
        token = call(site.socket, "admin.vm.volume.CloneFrom", source, "private")
    except CallError:
        token = b"none"
    return Write("admin.vm.volume.CloneTo", name, "private", token, {thing: size})


def change_pool(site: Site) -> Write:
    """A pool of the writer's own, which no qube uses."""
    name = f"{site.owner}-pool"
    thing = site.known("pool", name)
    if site.value(*thing) == THERE:
        return Write("admin.pool.Remove", "dom0", name, changes={thing: ABSENT})
    place = site.socket.parent / name
    payload = f"name={name}\ndir_path={place}\n".encode()
    return Write("admin.pool.Add", "dom0", "file", payload, {thing: THERE})


def set_firewall(site: Site) -> Write:
    name = site.qube()
    thing = site.known("firewall", name)
    rules = f"action=accept dst4=10.0.0.{site.random.randrange(256)}/32\naction=drop\n"
    return Write("admin.vm.firewall.Set", name, "", rules.encode("ascii"), {thing: rules})


def set_notes(site: Site) -> Write:
    name = site.qube()
    thing = site.known("notes", name)
    notes = f"note {site.random.randrange(10_000)}\n"
    return Write("admin.vm.notes.Set", name, "", notes.encode("ascii"), {thing: notes})


Kind = Callable[[Site], Write]

KINDS: Mapping[str, tuple[int, Kind]] = {
    "create": (4, create),
    "remove": (3, remove),
    "disposable": (1, create_disposable),
    "property": (4, set_property),
    "feature": (4, set_feature),
    "tag": (4, set_tag),
    "resize": (2, resize),
    "revisions": (1, keep_revisions),
    "clear": (1, clear),
    "snapshot": (1, snapshot),
    "clone": (2, clone),
    "pool": (1, change_pool),
    "firewall": (2, set_firewall),
    "notes": (1, set_notes),
}
"""Each with how often it is made, compared with the others."""


def draw(site: Site) -> tuple[str, Write]:
    """The next write of this writer, by its kind."""
    there = len(site.ledger.qubes())
    if there < 2:
        return "create", create(site)
    if there > MOST_QUBES:
        return "remove", remove(site)
    (kind,) = site.random.choices([*KINDS], [weight for weight, _ in KINDS.values()])
    return kind, KINDS[kind][1](site)


def _property(socket: Path, qube: str, name: str) -> Value:
    return call(socket, "admin.vm.property.Get", qube, name).decode("ascii").split(" ", 2)[2]


def _feature(socket: Path, qube: str, name: str) -> Value:
    try:
        return call(socket, "admin.vm.feature.Get", qube, name).decode("ascii")
    except CallError as error:
        if error.kind == "QubesFeatureNotFoundError":
            return ABSENT
        raise


def _tag(socket: Path, qube: str, name: str) -> Value:
    return THERE if call(socket, "admin.vm.tag.Get", qube, name) == b"1" else ABSENT


def _volume(socket: Path, qube: str, name: str) -> Value:
    lines = call(socket, "admin.vm.volume.Info", qube, "private").decode("ascii").splitlines()
    return dict(line.split("=", 1) for line in lines)[name]


def _firewall(socket: Path, qube: str) -> Value:
    return call(socket, "admin.vm.firewall.Get", qube).decode("ascii")


def _notes(socket: Path, qube: str) -> Value:
    return call(socket, "admin.vm.notes.Get", qube).decode("ascii")


def _pool(socket: Path, name: str) -> Value:
    pools = call(socket, "admin.pool.List").decode("ascii").splitlines()
    return THERE if name in pools else ABSENT


_READERS: Mapping[str, Callable[..., Value]] = {
    "property": _property,
    "feature": _feature,
    "tag": _tag,
    "volume": _volume,
    "firewall": _firewall,
    "notes": _notes,
    "pool": _pool,
}


def read(socket: Path, thing: Thing) -> Value:
    """What a thing of a qube or of the system is now."""
    kind, *words = thing
    return _READERS[kind](socket, *words)


def listed(socket: Path) -> set[str]:
    """The names of all qubes."""
    rows = call(socket, "admin.vm.List").decode("ascii").splitlines()
    return {row.partition(" ")[0] for row in rows}
