"""What happens to devices (``spec/events.md`` 3)."""

from __future__ import annotations

from dataclasses import dataclass

from qubesd.events import Keys, Read, WireEvent


@dataclass(frozen=True, slots=True)
class DeviceEvent(WireEvent):
    """About the device at a port of ``backend``; the subject is the qube that has it, or is to."""

    subject: str
    devclass: str
    backend: str
    port: str

    @property
    def wire_name(self) -> str:
        return f"{self.kind}:{self.devclass}"

    def keys(self) -> Keys:
        return (("port", f"{self.backend}:{self.port}"),)

    def reads(self) -> tuple[Read, ...]:
        argument = "_" if self.port == "*" else self.port
        return (Read(f"admin.vm.device.{self.devclass}.Available", argument, self.backend),)


@dataclass(frozen=True, slots=True)
class IdentityEvent(DeviceEvent):
    """With what is plugged in there; ``*`` for anything."""

    identity: str

    def keys(self) -> Keys:
        return (("device", f"{self.backend}:{self.port}:{self.identity}"),)


@dataclass(frozen=True, slots=True)
class OptionsEvent(IdentityEvent):
    """With the options, as text."""

    options: str = "{}"

    def keys(self) -> Keys:
        return (("device", f"{self.backend}:{self.port}:{self.identity}"), ("options", self.options))


class DevicePreAttach(OptionsEvent):
    kind = "device-pre-attach"
    ahead = True


class DeviceAttach(OptionsEvent):
    kind = "device-attach"


class DevicePreDetach(DeviceEvent):
    kind = "device-pre-detach"
    ahead = True


class DeviceDetach(DeviceEvent):
    kind = "device-detach"


class DevicePreAssign(OptionsEvent):
    kind = "device-pre-assign"
    ahead = True


class DeviceAssign(OptionsEvent):
    kind = "device-assign"
    kept = True


class DeviceUnassign(IdentityEvent):
    kind = "device-unassign"
    kept = True


class DeviceAssignmentChanged(IdentityEvent):
    kind = "device-assignment-changed"
    kept = True


class DeviceAdded(IdentityEvent):
    """On the backend."""

    kind = "device-added"


class DeviceRemoved(DeviceEvent):
    """On the backend."""

    kind = "device-removed"


@dataclass(frozen=True, slots=True)
class DeviceListEvent(WireEvent):
    """Of the devices of one class that the subject exposes."""

    subject: str
    devclass: str

    def reads(self) -> tuple[Read, ...]:
        return (Read(f"admin.vm.device.{self.devclass}.Available", "", self.subject),)


@dataclass(frozen=True, slots=True)
class DomainQdbChange(DeviceListEvent):
    """The guest wrote another list of them into its database, below ``path``."""

    kind = "domain-qdb-change"

    @property
    def path(self) -> str:
        return f"/qubes-{self.devclass}-devices"

    @property
    def wire_name(self) -> str:
        return f"{self.kind}:{self.path}"

    def keys(self) -> Keys:
        return (("path", self.path),)


@dataclass(frozen=True, slots=True)
class DeviceListChange(DeviceListEvent):
    """They are others now."""

    kind = "device-list-change"

    @property
    def wire_name(self) -> str:
        return f"{self.kind}:{self.devclass}"
