"""Typed events.

An event says what happened (or, where ``ahead`` is set, what is about to); it carries text, the form in which
its values also go over the wire (``spec/wire-protocol.md`` 3.2, keys in ``spec/events.md``). ``qubesd.bus``
carries them.

Events of the life cycle are in ``qubesd.core.power_events``, those that a guest causes in ``guest_events``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from qubesd.model.state import DOM0

Keys = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Event:
    """The root: ``subject`` is the qube it is about by name, ``None`` for the system as a whole."""

    ahead: ClassVar[bool] = False
    """Whether it is published before the change that it announces."""
    kept: ClassVar[bool] = False
    """Whether changes of what is kept tell it, so that something can be added to these."""
    of_change: ClassVar[bool] = False
    """Whether only a change of what is kept tells it, which can still be refused when it is judged."""
    cause: ClassVar[bool] = False
    """Whether what extensions add because of it is told after it, not before."""

    subject: str | None


class Read(NamedTuple):
    """A call of the Admin API that only reads; ``argument`` is without the ``+``."""

    service: str
    argument: str
    qube: str


@dataclass(frozen=True, slots=True)
class WireEvent(Event):
    """An event that streams carry."""

    kind: ClassVar[str]
    """The name on the wire up to the colon."""

    apart: ClassVar[bool] = False
    """Whether only a stream that was opened on its very subject carries it."""

    @property
    def wire_name(self) -> str:
        """The full name on the wire, such as ``property-set:label``."""
        return self.kind

    def keys(self) -> Keys:
        """The keys and values on the wire, in order."""
        return ()

    def reads(self) -> tuple[Read, ...]:
        """The calls that answer what it tells besides that it happened; under strict visibility only
        those get it who may make all of them."""
        return ()


@dataclass(frozen=True, slots=True)
class QubeChanged(Event):
    """The record or the run state of this qube changed, or it came or went. Never on the wire: who keeps a
    picture derived from the qubes makes this one's anew."""


@dataclass(frozen=True, slots=True)
class SystemChanged(Event):
    """Global properties, labels or pools changed, so anything derived from any qube may have."""

    subject: None = None


@dataclass(frozen=True, slots=True)
class SystemRestored(SystemChanged):
    """A write failed and the state is again what the disk holds; what was told since then is void."""


@dataclass(frozen=True, slots=True)
class PropertyEvent(WireEvent):
    kept = True

    """About one property; a subject of ``None`` means a global one. No ``oldvalue``: there was none, or it is
    a computed value that may have changed."""

    name: str
    oldvalue: str | None = None

    @property
    def wire_name(self) -> str:
        return f"{self.kind}:{self.name}"

    def keys(self) -> Keys:
        old = () if self.oldvalue is None else (("oldvalue", self.oldvalue),)
        return (("name", self.name), *old)

    def reads(self) -> tuple[Read, ...]:
        if self.subject is None:
            return (Read("admin.property.Get", self.name, DOM0),)
        return (Read("admin.vm.property.Get", self.name, self.subject),)


@dataclass(frozen=True, slots=True)
class PropertyValue(PropertyEvent):
    """A property gets a value of its own."""

    newvalue: str = ""

    def keys(self) -> Keys:
        old = () if self.oldvalue is None else (("oldvalue", self.oldvalue),)
        return (("name", self.name), ("newvalue", self.newvalue), *old)


@dataclass(frozen=True, slots=True)
class PropertySet(PropertyValue):
    kind = "property-set"


@dataclass(frozen=True, slots=True)
class PropertyPreSet(PropertyValue):
    kind = "property-pre-set"
    ahead = True


@dataclass(frozen=True, slots=True)
class PropertyReset(PropertyEvent):
    kind = "property-reset"


@dataclass(frozen=True, slots=True)
class PropertyPreReset(PropertyEvent):
    kind = "property-pre-reset"
    ahead = True


@dataclass(frozen=True, slots=True)
class PropertyDel(PropertyEvent):
    """The deprecated twin of ``PropertyReset``."""

    kind = "property-del"


@dataclass(frozen=True, slots=True)
class PropertyPreDel(PropertyEvent):
    """The deprecated twin of ``PropertyPreReset``."""

    kind = "property-pre-del"
    ahead = True


@dataclass(frozen=True, slots=True)
class FeatureEvent(WireEvent):
    kept = True

    subject: str
    feature: str

    @property
    def wire_name(self) -> str:
        return f"{self.kind}:{self.feature}"

    def keys(self) -> Keys:
        return (("feature", self.feature),)

    def reads(self) -> tuple[Read, ...]:
        return (Read("admin.vm.feature.Get", self.feature, self.subject),)


@dataclass(frozen=True, slots=True)
class FeatureValue(FeatureEvent):
    """A feature gets a value; ``oldvalue`` is ``None`` where it was not there before."""

    value: str
    oldvalue: str | None = None

    def keys(self) -> Keys:
        old = () if self.oldvalue is None else (("oldvalue", self.oldvalue),)
        return (("feature", self.feature), ("value", self.value), *old)


@dataclass(frozen=True, slots=True)
class FeatureSet(FeatureValue):
    kind = "domain-feature-set"


@dataclass(frozen=True, slots=True)
class FeaturePreSet(FeatureValue):
    kind = "domain-feature-pre-set"
    ahead = True


@dataclass(frozen=True, slots=True)
class FeatureDelete(FeatureEvent):
    kind = "domain-feature-delete"


@dataclass(frozen=True, slots=True)
class FeaturePreDelete(FeatureEvent):
    kind = "domain-feature-pre-delete"
    ahead = True


@dataclass(frozen=True, slots=True)
class TagEvent(WireEvent):
    kept = True
    of_change = True

    subject: str
    tag: str

    @property
    def wire_name(self) -> str:
        return f"{self.kind}:{self.tag}"

    def keys(self) -> Keys:
        return (("tag", self.tag),)

    def reads(self) -> tuple[Read, ...]:
        return (Read("admin.vm.tag.Get", self.tag, self.subject),)


@dataclass(frozen=True, slots=True)
class TagAdded(TagEvent):
    kind = "domain-tag-add"


@dataclass(frozen=True, slots=True)
class TagRemoved(TagEvent):
    kind = "domain-tag-delete"


@dataclass(frozen=True, slots=True)
class QubeCreatedOnDisk(WireEvent):
    kind = "domain-create-on-disk"
    kept = True


@dataclass(frozen=True, slots=True)
class QubeRemovedFromDisk(WireEvent):
    """The last of a qube: it has gone, and now its files have too."""

    kind = "domain-remove-from-disk"
    apart = True


@dataclass(frozen=True, slots=True)
class FirewallChanged(WireEvent):
    """The rules of the qube are others, or are to be carried out anew."""

    kind = "firewall-changed"


@dataclass(frozen=True, slots=True)
class VolumeEvent(WireEvent):
    """About one volume of a qube."""

    subject: str
    volume: str

    def keys(self) -> Keys:
        return (("volume", self.volume),)

    def reads(self) -> tuple[Read, ...]:
        return (Read("admin.vm.volume.Info", self.volume, self.subject),)


@dataclass(frozen=True, slots=True)
class VolumeImportBegin(VolumeEvent):
    """New content is on its way; ``size`` is in bytes."""

    kind = "domain-volume-import-begin"
    size: str

    def keys(self) -> Keys:
        return (("volume", self.volume), ("size", self.size))


@dataclass(frozen=True, slots=True)
class VolumeImportEnd(VolumeEvent):
    kind = "domain-volume-import-end"
    success: bool

    def keys(self) -> Keys:
        return (("volume", self.volume), ("success", str(self.success)))


@dataclass(frozen=True, slots=True)
class VolumeReplaced(VolumeEvent):
    """The content is now that of the volume whose vid is ``source``."""

    kind = "domain-import-volume"
    source: str

    def keys(self) -> Keys:
        return (("name", self.volume), ("source", self.source))


@dataclass(frozen=True, slots=True)
class PoolEvent(WireEvent):
    kept = True

    """An event of the system (its subject is ``None``) that speaks of a pool."""

    pool: str

    def keys(self) -> Keys:
        return (("pool", self.pool),)

    def reads(self) -> tuple[Read, ...]:
        return (Read("admin.pool.Info", self.pool, DOM0),)


@dataclass(frozen=True, slots=True)
class PoolAdded(PoolEvent):
    kind = "pool-add"


@dataclass(frozen=True, slots=True)
class PoolPreDelete(PoolEvent):
    kind = "pool-pre-delete"
    ahead = True


@dataclass(frozen=True, slots=True)
class PoolRemoved(PoolEvent):
    kind = "pool-delete"


@dataclass(frozen=True, slots=True)
class QubeListEvent(WireEvent):
    kept = True

    """An event of the system (its subject is ``None``) that speaks of the qube ``qube``."""

    qube: str

    def keys(self) -> Keys:
        return (("vm", self.qube),)


@dataclass(frozen=True, slots=True)
class QubeAdded(QubeListEvent):
    kind = "domain-add"
    of_change = True
    cause = True


@dataclass(frozen=True, slots=True)
class QubePreDelete(QubeListEvent):
    kind = "domain-pre-delete"
    ahead = True


@dataclass(frozen=True, slots=True)
class QubeRemoved(QubeListEvent):
    kind = "domain-delete"


@dataclass(frozen=True, slots=True)
class BackupProgress(WireEvent):
    """So much of a backup is done, in percent. It is told to those who may look at the profile."""

    kind = "backup-progress"
    profile: str
    progress: float

    def keys(self) -> Keys:
        return (("backup_profile", self.profile), ("progress", str(self.progress)))

    def reads(self) -> tuple[Read, ...]:
        return (Read("admin.backup.Info", self.profile, DOM0),)
