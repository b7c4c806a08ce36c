"""The persistent state of a system as values: what ``qubes.xml`` holds, and nothing that only a run knows.

Every class here is frozen. A change makes a new ``System`` that shares all the rest with the old one, so the
state that was durable last, the state that a call was judged by and the state that is being written are each
simply kept, and going back after a failed write is one assignment.

Qubes, labels and pools refer to each other by name; names of qubes are write-once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

DOM0 = "dom0"
DOM0_UUID = "00000000-0000-0000-0000-000000000000"

_EMPTY: Mapping[Any, Any] = MappingProxyType({})


def _nothing() -> Mapping[Any, Any]:
    """A factory, since dataclasses take no default that cannot be hashed."""
    return _EMPTY


Value = bool | int | str | None
"""A property's explicit value: a qube, a label or a pool stands as its name, no qube as ``None``."""


Place = tuple[str, ...]
"""Where in a stored record something stands, from the outside in."""


class Kept(NamedTuple):
    """What stands at one place of a stored record and means nothing to this version: attributes, and elements
    as XML."""

    attributes: tuple[tuple[str, str], ...] = ()
    elements: tuple[str, ...] = ()


class Klass(StrEnum):
    """The classes of qubes (``spec/domains.md`` 1)."""

    ADMIN = "AdminVM"
    TEMPLATE = "TemplateVM"
    APP = "AppVM"
    STANDALONE = "StandaloneVM"
    DISPOSABLE = "DispVM"
    REMOTE = "RemoteVM"


@dataclass(frozen=True, slots=True)
class Label:
    """A colour that a person tells qubes apart by; ``color`` is ``0xrrggbb``."""

    name: str
    index: int
    color: str


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """A storage pool as configured: its name, its driver and the driver's options as text, in file order."""

    name: str
    driver: str
    options: Mapping[str, str] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class VolumeConfig:
    """One volume of a qube (``spec/qubes-xml.md`` 1.5).

    ``size`` is in bytes, ``source`` a vid in the same pool; ``ephemeral`` is ``None`` where it follows the
    pool.
    """

    name: str
    pool: str
    vid: str
    revisions_to_keep: int = 0
    rw: bool = False
    save_on_stop: bool = False
    snap_on_start: bool = False
    size: int = 0
    source: str | None = None
    ephemeral: bool | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """A device assigned to a qube (``spec/qubes-xml.md`` 1.4); ``*`` as ``port`` or ``identity`` is any."""

    devclass: str
    backend: str
    port: str
    identity: str = "*"
    mode: str = "required"
    options: Mapping[str, str] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class Qube:
    """One qube as stored.

    ``properties`` holds the explicitly set ones only, without name, qid, uuid and dispid. ``features`` maps a
    name to its text (empty means "set, but false"). ``kept`` is what the file says of it and nobody here
    understands.
    """

    name: str
    qid: int
    uuid: str
    klass: Klass
    properties: Mapping[str, Value] = field(default_factory=_nothing)
    features: Mapping[str, str] = field(default_factory=_nothing)
    tags: frozenset[str] = frozenset()
    assignments: tuple[Assignment, ...] = ()
    volumes: Mapping[str, VolumeConfig] = field(default_factory=_nothing)
    dispid: int | None = None
    kept: Mapping[Place, Kept] = field(default_factory=_nothing)

    def with_property(self, name: str, value: Value) -> Qube:
        return replace(self, properties={**self.properties, name: value})

    def without_property(self, name: str) -> Qube:
        return replace(
            self,
            properties={k: v for k, v in self.properties.items() if k != name},
            kept=_without(self.kept, "properties", name),
        )

    def with_feature(self, name: str, value: str) -> Qube:
        return replace(self, features={**self.features, name: value})

    def without_feature(self, name: str) -> Qube:
        return replace(
            self,
            features={k: v for k, v in self.features.items() if k != name},
            kept=_without(self.kept, "features", name),
        )

    def with_tag(self, tag: str) -> Qube:
        return replace(self, tags=self.tags | {tag})

    def without_tag(self, tag: str) -> Qube:
        return replace(self, tags=self.tags - {tag}, kept=_without(self.kept, "tags", tag))


@dataclass(frozen=True, slots=True)
class System:
    """Everything that is kept: labels, pools, global properties and qubes by name, with an index by uuid.

    ``kept`` is what the file says besides and nobody here understands; what it says of a qube is the qube's.
    """

    labels: Mapping[str, Label] = field(default_factory=_nothing)
    pools: Mapping[str, PoolConfig] = field(default_factory=_nothing)
    properties: Mapping[str, Value] = field(default_factory=_nothing)
    qubes: Mapping[str, Qube] = field(default_factory=_nothing)
    by_uuid: Mapping[str, str] = field(default_factory=_nothing, repr=False)
    kept: Mapping[Place, Kept] = field(default_factory=_nothing)

    def find(self, token: str) -> Qube | None:
        """The qube of that name, or of ``uuid:`` and that uuid; ``None`` where there is none."""
        if token.startswith("uuid:"):
            name = self.by_uuid.get(token[5:])
            return None if name is None else self.qubes[name]
        return self.qubes.get(token)

    def with_qube(self, qube: Qube) -> System:
        """With this qube added, or put in the place of the one of its name."""
        return replace(
            self, qubes={**self.qubes, qube.name: qube}, by_uuid={**self.by_uuid, qube.uuid: qube.name}
        )

    def without_qube(self, name: str) -> System:
        gone = self.qubes[name].uuid
        return replace(
            self,
            qubes={k: v for k, v in self.qubes.items() if k != name},
            by_uuid={k: v for k, v in self.by_uuid.items() if k != gone},
        )

    def with_property(self, name: str, value: Value) -> System:
        return replace(self, properties={**self.properties, name: value})

    def without_property(self, name: str) -> System:
        return replace(
            self,
            properties={k: v for k, v in self.properties.items() if k != name},
            kept=_without(self.kept, "properties", name),
        )

    def with_label(self, label: Label) -> System:
        return replace(self, labels={**self.labels, label.name: label})

    def without_label(self, name: str) -> System:
        return replace(
            self,
            labels={k: v for k, v in self.labels.items() if k != name},
            kept=_without(self.kept, "labels", name),
        )

    def with_pool(self, pool: PoolConfig) -> System:
        return replace(self, pools={**self.pools, pool.name: pool})

    def without_pool(self, name: str) -> System:
        return replace(
            self,
            pools={k: v for k, v in self.pools.items() if k != name},
            kept=_without(self.kept, "pools", name),
        )

    def in_order(self) -> list[Qube]:
        """All qubes as every list has them: dom0 first, then by name in code-point order."""
        return sorted(self.qubes.values(), key=lambda qube: (qube.name != DOM0, qube.name))


def _without(kept: Mapping[Place, Kept], *place: str) -> Mapping[Place, Kept]:
    """Without what stands at this place and in it, so that a later record of the name has nothing of it."""
    return {k: v for k, v in kept.items() if k[: len(place)] != place} if kept else kept
