"""The method table as a whole: what there is, and what each line promises."""

from __future__ import annotations

import inspect

import pytest

from qubesd.api.method import (
    Access,
    Command,
    Destination,
    DeviceRows,
    Method,
    NameRows,
    Need,
    QubeRows,
    Reply,
    Scope,
    Text,
    Unguarded,
    VolumeRows,
)
from qubesd.api.table import INTERNAL, METHODS
from qubesd.api.values import Kind, Unspoken, Values, one
from qubesd.core.core import Core

CLASSES = ("TemplateVM", "AppVM", "StandaloneVM", "DispVM", "RemoteVM")

EXPECTED = {
    "admin.vmclass.List",
    "admin.deviceclass.List",
    "admin.vm.List",
    *(f"admin.vm.Create.{klass}" for klass in CLASSES),
    *(f"admin.vm.CreateInPool.{klass}" for klass in CLASSES),
    "admin.vm.CreateDisposable",
    "admin.vm.Remove",
    *(f"admin.vm.{verb}" for verb in ("Start", "Shutdown", "Pause", "Unpause", "Suspend", "Resume", "Kill")),
    "admin.vm.CurrentState",
    *(
        f"{family}.{call}"
        for family in ("admin.property", "admin.vm.property")
        for call in ("List", "Get", "GetAll", "GetDefault", "Help", "HelpRst", "Set", "Reset")
    ),
    *(f"admin.vm.feature.{call}" for call in ("List", "Get", "Set", "Remove")),
    *(
        f"admin.vm.feature.CheckWith{chain}"
        for chain in ("Template", "Netvm", "AdminVM", "TemplateAndAdminVM")
    ),
    *(f"admin.vm.tag.{call}" for call in ("List", "Get", "Set", "Remove")),
    *(f"admin.label.{call}" for call in ("List", "Get", "Index", "Create", "Remove")),
    "admin.Events",
    *(f"admin.vm.{call}" for call in ("Stats", "Console", "notes.Get", "notes.Set")),
    *(f"admin.vm.firewall.{call}" for call in ("Get", "Set", "Reload")),
    *(f"admin.vm.device.denied.{call}" for call in ("List", "Add", "Remove")),
    *(
        f"admin.vm.device.{klass}.{call}"
        for klass in ("block", "mic", "pci", "usb")
        for call in (
            *(
                "Available",
                "Assigned",
                "Attached",
                "Assign",
                "Unassign",
                "Attach",
                "Detach",
                "Set.assignment",
            ),
            *("List", "Set.persistent", "Set.required"),
        )
    ),
    *(
        f"admin.vm.volume.{call}"
        for call in (
            *(
                "List",
                "Info",
                "ListSnapshots",
                "Snapshot",
                "Revert",
                "CloneFrom",
                "CloneTo",
                "Resize",
                "Clear",
            ),
            # Import and ImportWithSize are programs, for their data is a stream.
            *("Set.revisions_to_keep", "Set.rw", "Set.ephemeral"),
        )
    ),
    *(
        f"admin.pool.{call}"
        for call in (
            *("List", "ListDrivers", "Info", "UsageDetails", "Add", "Remove"),
            *("Set.revisions_to_keep", "Set.ephemeral_volatile"),
        )
    ),
    *(
        f"admin.pool.volume.{call}"
        for call in (
            *(
                "List",
                "Info",
                "ListSnapshots",
                "Snapshot",
                "Revert",
                "Resize",
                "Import",
                "CloneFrom",
                "CloneTo",
            ),
            "Set.revisions_to_keep",
        )
    ),
    *(f"admin.backup.{call}" for call in ("Info", "Execute", "Cancel")),
}
CHANGES_NOTHING = {
    *("admin.vm.Console", "admin.vm.firewall.Reload", "admin.backup.Cancel"),
    *("admin.vm.volume.CloneFrom", "admin.pool.volume.CloneFrom"),
}
BEGINS_AT_ONCE = {"admin.vm.CreateDisposable"}
"""What it is about is looked up in the turn of the loop in which it was judged; the rest waits."""


def test_table_is_complete() -> None:
    assert set(METHODS) == EXPECTED
    assert set(INTERNAL) >= {"internal.GetSystemInfo"}


@pytest.mark.parametrize("method", [pytest.param(method, id=name) for name, method in METHODS.items()])
def test_line_is_consistent(method: Method) -> None:
    if method.access is Access.READ:
        assert method.payload is Need.FORBIDDEN or method.name.startswith("admin.pool.volume.")
    elif method.name not in CHANGES_NOTHING | BEGINS_AT_ONCE:
        assert inspect.iscoroutinefunction(method.handler), "a change is answered when it is durable"
    if method.name.endswith(".Set"):
        assert method.parse is not None
    if isinstance(method.guard, QubeRows | NameRows | VolumeRows | DeviceRows):
        assert method.guard.read in METHODS
        assert METHODS[method.guard.read].access is Access.READ
    if method.name.startswith(("admin.property", "admin.label", "admin.vmclass", "admin.vm.Create.")):
        assert method.destination is Destination.DOM0
        assert method.scope is Scope.GLOBAL


def answer(core: Core, command: Command) -> Reply:
    return Text("")


def test_method_without_a_guard_cannot_be_written_down() -> None:
    with pytest.raises(TypeError, match="guard"):
        Method("admin.x", answer, Scope.LOCAL, Access.READ)  # type: ignore[call-arg]  # that is the point
    with pytest.raises(TypeError, match="neither a guard nor a reason"):
        Method("admin.x", answer, Scope.LOCAL, Access.READ, None)  # type: ignore[arg-type]  # untyped


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        pytest.param(Need.REQUIRED, None, id="required"),
        pytest.param(Need.OPTIONAL, None, id="optional"),
        pytest.param(Need.FORBIDDEN, Unspoken("there is none"), id="there-is-none"),
        pytest.param(Need.FORBIDDEN, one(Kind.TEXT), id="value-of-nothing"),
    ],
)
def test_method_says_what_policies_can_say_of_its_payload(
    payload: Need, values: Values | Unspoken | None
) -> None:
    with pytest.raises(TypeError, match="payload"):
        Method(*("admin.x", answer, Scope.LOCAL, Access.READ, Unguarded("x")), payload=payload, values=values)
