"""What can go wrong in a call, each with the name under which it goes over the wire.

A class declares its wire name, so that renaming a class changes no protocol. Where each is used is in the
specification of the wire protocol, sections 3.5 and 3.6; a name that stock clients do not know reaches them
as their general ``QubesException``.
"""

from __future__ import annotations

from typing import ClassVar


class QubesError(Exception):
    """A call failed for a reason that its caller may read.

    The message is plain text for people: what, where, what to do. It never holds bytes from a qube that
    were not checked.
    """

    wire_name: ClassVar[str] = "QubesException"


class ProtocolError(QubesError):
    """The call itself is malformed: unknown method, argument or payload where none may be, bad form."""

    wire_name = "ProtocolError"


class InvalidTag(ProtocolError):
    wire_name = "QubesInvalidTagError"


class InvalidLabel(ProtocolError):
    wire_name = "QubesInvalidLabelError"


class InvalidLabelValue(ProtocolError):
    wire_name = "QubesInvalidLabelValueError"


class PermissionDenied(QubesError):
    """The caller may not do this, whatever policy says of the call as a whole."""

    wire_name = "PermissionDenied"


class OverLimit(PermissionDenied):
    """What an owner may use is used up.

    The message is the same whatever the limit is: who acts need not be the owner. ``detail`` is for the owner
    and dom0 only.
    """

    def __init__(self, owner: str, what: str, limit: int, have: int, asked: int) -> None:
        """``owner`` is a uuid, ``what`` the name of a figure, the numbers are of qubes or of bytes."""
        super().__init__("denied: a limit is reached")
        self.owner = owner
        self.what = what
        self.limit = limit
        self.have = have
        self.asked = asked

    @property
    def detail(self) -> str:
        """The figures, such as ``qubes: 10 of 10``."""
        figures = f"{self.what}: {self.have} of {self.limit}"
        return f"{figures} bytes, {self.asked} more wanted" if self.what in ("memory", "storage") else figures


class NoSuchQube(QubesError):
    wire_name = "QubesVMNotFoundError"


class InvalidUuid(QubesError):
    wire_name = "QubesVMInvalidUUIDError"


class QubeExists(QubesError):
    wire_name = "QubesVMAlreadyExistsError"


class QubeError(QubesError):
    """The qube is not in a condition for this."""

    wire_name = "QubesVMError"


class QubeInUse(QubeError):
    wire_name = "QubesVMInUseError"


class QubeNotStarted(QubeError):
    wire_name = "QubesVMNotStartedError"


class QubeNotRunning(QubeNotStarted):
    wire_name = "QubesVMNotRunningError"


class QubeNotPaused(QubeNotStarted):
    wire_name = "QubesVMNotPausedError"


class QubeNotHalted(QubeError):
    wire_name = "QubesVMNotHaltedError"


class ShutdownTimeout(QubeError):
    wire_name = "QubesVMShutdownTimeoutError"


class NotEnoughMemory(QubeError):
    wire_name = "QubesMemoryError"


class BadValue(QubesError):
    wire_name = "QubesValueError"


class BadPropertyValue(BadValue):
    wire_name = "QubesPropertyValueError"


class NoSuchProperty(QubesError):
    wire_name = "QubesNoSuchPropertyError"


class NoSuchFeature(QubesError):
    wire_name = "QubesFeatureNotFoundError"


class NoSuchTag(QubesError):
    wire_name = "QubesTagNotFoundError"


class NoSuchLabel(QubesError):
    wire_name = "QubesLabelNotFoundError"


class LabelInUse(QubesError):
    wire_name = "QubesLabelInUseError"


class PoolInUse(QubesError):
    wire_name = "QubesPoolInUseError"


class StorageError(QubesError):
    wire_name = "StoragePoolException"


class NoSuchPool(QubesError):
    wire_name = "QubesPoolNotFoundError"


class NoSuchVolume(QubesError):
    wire_name = "QubesVolumeNotFoundError"


class NoSuchRevision(QubesError):
    wire_name = "QubesVolumeRevisionNotFoundError"


class NoSuchToken(QubesError):
    wire_name = "QubesVolumeCopyTokenNotFoundError"


class NotSupported(QubesError):
    """The hypervisor or the driver below has no such operation."""

    wire_name = "QubesNotImplementedError"


class HypervisorLost(QubesError):
    """libvirt does not answer; the call was not carried out. The daemon goes on and reconnects."""


class StoreError(QubesError):
    """The system's description could not be read or made durable; nothing was changed."""


class DeviceNotFound(QubesError):
    wire_name = "DeviceNotFound"


class DeviceAlreadyAttached(QubesError):
    wire_name = "DeviceAlreadyAttached"


class DeviceAlreadyAssigned(QubesError):
    wire_name = "DeviceAlreadyAssigned"


class DeviceNotAssigned(QubesError):
    wire_name = "DeviceNotAssigned"


class NoSuchMode(BadValue):
    wire_name = "QubesUnrecognizedDeviceAssignmentMode"


class NoSuchBackupProfile(QubesError):
    wire_name = "QubesBackupProfileNotFoundError"


class BackupAlreadyRunning(QubesError):
    wire_name = "BackupAlreadyRunningError"


class BackupCancelled(QubesError):
    """Somebody asked for it, or gave no passphrase; nothing of the backup is left."""

    wire_name = "BackupCancelledError"


class PolicyAdminError(QubesError):
    """A call about the policy's files failed (``spec/policy-daemon.md`` 8)."""

    wire_name = "PolicyAdminException"


class PolicyProtocolError(PolicyAdminError):
    """Something is missing or of a bad form: argument, payload, token, service."""

    wire_name = "PolicyAdminProtocolException"


class BadPolicyName(PolicyProtocolError):
    wire_name = "PolicyAdminInvalidFileNameException"


class BadPolicyPath(PolicyProtocolError):
    """The name leads out of its directory, or to something that is no file."""

    wire_name = "PolicyAdminInvalidFilePathException"


class PolicySyntaxError(PolicyProtocolError):
    """With this change the policy would not be whole; it was not made."""

    wire_name = "PolicyAdminSyntaxException"


class PolicyTokenError(PolicyAdminError):
    """The file is not what the caller takes it to be."""

    wire_name = "PolicyAdminTokenException"


class NoSuchPolicyFile(PolicyAdminError):
    wire_name = "PolicyAdminFileNotFoundException"
