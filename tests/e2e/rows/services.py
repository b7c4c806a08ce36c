"""Firewall, notes, statistics, console, devices, and the sleep of the host."""

from __future__ import annotations

from tests.e2e.rows.row import Row

DEVICE = "admin.vm.device"
CLASSES = ("block", "mic", "pci", "usb")

DENIED_INTERFACES = [
    Row(
        f"{DEVICE}.denied.List {{q}}",
        "b010203\nu080650",
        f"{DEVICE}.denied.List+x {{q}}",
        "ProtocolError",
        before=(f"{DEVICE}.denied.Add {{q}} u080650b010203",),
    ),
    Row(f"{DEVICE}.denied.Add {{q}} u080650", "", f"{DEVICE}.denied.Add {{q}} u08065", "QubesValueError"),
    Row(f"{DEVICE}.denied.Remove {{q}} all", "", f"{DEVICE}.denied.Remove {{q}} u08065", "QubesValueError"),
]

ROWS = [
    *(
        Row(
            f"internal.{service} dom0",
            "",
            f"internal.{service}+x dom0",
            "ProtocolError",
            after=("internal.SuspendPost dom0",),
        )
        for service in ("SuspendPre", "SuspendPost")
    ),
    Row("admin.vm.firewall.Get {q}", "action=accept\n", "admin.vm.firewall.Get dom0", "ProtocolError"),
    Row(
        "admin.vm.firewall.Set {q} action=accept dst4=10.0.0.1\naction=drop\n",
        "",
        "admin.vm.firewall.Set {q} action=burn\n",
        "QubesValueError",
    ),
    Row("admin.vm.firewall.Reload {q}", "", "admin.vm.firewall.Reload dom0", "ProtocolError"),
    Row("admin.vm.notes.Get {q}", "", "admin.vm.notes.Get dom0", "ProtocolError"),
    Row("admin.vm.notes.Set {q} all\tof it\n", "", "admin.vm.notes.Set dom0 x", "ProtocolError"),
    Row(
        "admin.vm.Stats {q}",
        "1\0\0connection-established\0\0",
        "admin.vm.Stats+x {q}",
        "ProtocolError",
        before=("admin.vm.Start {q}",),
        stream=True,
    ),
    Row(
        "admin.vm.Console {q}",
        "",
        "admin.vm.Console+x {q}",
        "ProtocolError",
        before=("admin.vm.Start {q}",),
        refused="QubesNotImplementedError",
    ),
    *DENIED_INTERFACES,
]
