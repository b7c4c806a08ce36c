"""Events of the life cycle, with the keys that they have on the wire (``spec/events.md`` 3)."""

from __future__ import annotations

from dataclasses import dataclass

from qubesd.events import Event, Keys, Read, WireEvent


@dataclass(frozen=True, slots=True)
class DomainEvent(WireEvent):
    """Something about the run of one qube."""

    subject: str


@dataclass(frozen=True, slots=True)
class DomainStartStep(DomainEvent):
    """A step of a start. ``start_guid`` says that a GUI is to come up with the qube, as with every start over
    the API."""

    def keys(self) -> Keys:
        return (("start_guid", "True"),)


@dataclass(frozen=True, slots=True)
class DomainPreStart(DomainStartStep):
    """``mem_required`` is what the start asks of the host, in bytes."""

    kind = "domain-pre-start"
    ahead = True

    mem_required: int

    def keys(self) -> Keys:
        return (("start_guid", "True"), ("mem_required", str(self.mem_required)))


@dataclass(frozen=True, slots=True)
class DomainPreSpawn(DomainStartStep):
    kind = "domain-pre-spawn"
    ahead = True


@dataclass(frozen=True, slots=True)
class DomainSpawn(DomainStartStep):
    kind = "domain-spawn"


@dataclass(frozen=True, slots=True)
class DomainStart(DomainStartStep):
    kind = "domain-start"


@dataclass(frozen=True, slots=True)
class DomainAppeared(Event):
    """The qube runs though nobody here has started it. Never on the wire."""

    subject: str


@dataclass(frozen=True, slots=True)
class DomainFailure(DomainEvent):
    """``reason`` is the text that the caller got as well."""

    reason: str

    def keys(self) -> Keys:
        return (("reason", self.reason),)


@dataclass(frozen=True, slots=True)
class DomainStartFailed(DomainFailure):
    kind = "domain-start-failed"


@dataclass(frozen=True, slots=True)
class DomainShutdownFailed(DomainFailure):
    kind = "domain-shutdown-failed"


@dataclass(frozen=True, slots=True)
class DomainVerifyFiles(DomainEvent):
    kind = "domain-verify-files"


@dataclass(frozen=True, slots=True)
class DomainQdbCreate(DomainEvent):
    kind = "domain-qdb-create"


@dataclass(frozen=True, slots=True)
class DomainCmdPreRun(DomainEvent):
    """A service is about to be run in the guest, for which no GUI has to come up."""

    kind = "domain-cmd-pre-run"
    ahead = True

    def keys(self) -> Keys:
        return (("start_guid", "False"),)


@dataclass(frozen=True, slots=True)
class NetDomainConnect(DomainEvent):
    """The running qube ``client`` was joined to its new netvm, which is the subject."""

    kind = "net-domain-connect"

    client: str

    def keys(self) -> Keys:
        return (("vm", self.client),)


@dataclass(frozen=True, slots=True)
class DomainPreShutdown(DomainEvent):
    kind = "domain-pre-shutdown"
    ahead = True

    force: bool

    def keys(self) -> Keys:
        return (("force", str(self.force)),)


@dataclass(frozen=True, slots=True)
class DomainStopped(DomainEvent):
    """The domain is gone."""

    kind = "domain-stopped"


@dataclass(frozen=True, slots=True)
class DomainShutdown(DomainEvent):
    """The stop has been dealt with: the qube is halted."""

    kind = "domain-shutdown"


@dataclass(frozen=True, slots=True)
class DomainPrePaused(DomainEvent):
    kind = "domain-pre-paused"
    ahead = True


@dataclass(frozen=True, slots=True)
class DomainPaused(DomainEvent):
    kind = "domain-paused"


@dataclass(frozen=True, slots=True)
class DomainPreUnpaused(DomainEvent):
    kind = "domain-pre-unpaused"
    ahead = True


@dataclass(frozen=True, slots=True)
class PreloadStart(DomainEvent):
    """Disposables of this template are made ahead, after ``delay`` seconds."""

    kind = "domain-preload-dispvm-start"

    reason: str
    delay: float

    def keys(self) -> Keys:
        return (("reason", self.reason), ("delay", f"{self.delay:g}"))


@dataclass(frozen=True, slots=True)
class PreloadUsed(DomainEvent):
    """One that was made ahead was handed out; the next follows after ``delay`` seconds."""

    kind = "domain-preload-dispvm-used"

    dispvm: str
    delay: float

    def keys(self) -> Keys:
        return (("dispvm", self.dispvm), ("delay", f"{self.delay:g}"))

    def reads(self) -> tuple[Read, ...]:
        return (Read("admin.vm.List", "", self.dispvm),)


@dataclass(frozen=True, slots=True)
class DomainUnpaused(DomainEvent):
    kind = "domain-unpaused"


@dataclass(frozen=True, slots=True)
class DomainResumed(DomainEvent):
    kind = "domain-resumed"
