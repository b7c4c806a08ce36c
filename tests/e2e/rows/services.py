"""Firewall, notes, statistics, console, devices, and the sleep of the host."""

from __future__ import annotations

from pathlib import Path

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


def furnish(root: Path) -> None:
    """Write a profile that selects nothing."""
    profile = root / "etc/qubes/backup/weekly.conf"
    profile.parent.mkdir(parents=True)
    profile.write_text(
        f"include: []\ndestination_vm: dom0\ndestination_path: {root}\npassphrase_text: x\n", encoding="utf-8"
    )


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
    Row(
        "admin.backup.Info+weekly dom0",
        r"VM +type +size\n[- ]+\ntotal +0.0 KiB\n\nnot selected:\n(  \S+\n)+",
        "admin.backup.Info+a/b dom0",
        "ProtocolError",
    ),
    Row(
        "admin.backup.Execute+weekly dom0",
        "",
        "admin.backup.Execute+nosuch dom0",
        "QubesBackupProfileNotFoundError",
        refused="QubesException",
    ),
    Row(
        "admin.backup.Cancel+weekly dom0",
        "",
        "admin.backup.Cancel+nosuch dom0",
        "QubesException",
        refused="QubesException",
    ),
    *DENIED_INTERFACES,
]
