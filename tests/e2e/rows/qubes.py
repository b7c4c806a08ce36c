"""Qubes, their life cycle and what there can be."""

from __future__ import annotations

from tests.e2e.rows.row import Row

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
START = "admin.vm.Start {q}"
NOT_RUNNING, NOT_PAUSED = "QubesVMNotRunningError", "QubesVMNotPausedError"

CREATIONS = [
    Row(
        f"admin.vm.Create{place}.{klass}{template} dom0 name={{q}}-new label=red{pool}",
        "",
        f"admin.vm.Create{place}.{klass} dom0 name={{q}} label=red{pool}",
        "QubesVMAlreadyExistsError",
    )
    for place, pool in (("", ""), ("InPool", " pool=varlibqubes"))
    for klass, template in (
        ("TemplateVM", ""),
        ("AppVM", "+tmpl"),
        ("StandaloneVM", ""),
        ("DispVM", "+dvm"),
        ("RemoteVM", ""),
    )
]

ROWS = [
    Row(
        "admin.vmclass.List dom0",
        "AdminVM\nAppVM\nDispVM\nRemoteVM\nStandaloneVM\nTemplateVM\n",
        "admin.vmclass.List {q}",
        "ProtocolError",
    ),
    Row(
        "admin.deviceclass.List dom0",
        "block\nmic\npci\nusb\n",
        "admin.deviceclass.List+usb dom0",
        "ProtocolError",
    ),
    Row(
        "admin.vm.List {q}",
        f"{{q}} class=StandaloneVM state=Halted uuid={UUID}\n",
        "admin.vm.List+all dom0",
        "ProtocolError",
    ),
    *CREATIONS,
    Row("admin.vm.CreateDisposable dvm", "disp[0-9]+", "admin.vm.CreateDisposable {q}", "QubesException"),
    Row("admin.vm.Remove {q}", "", "admin.vm.Remove tmpl", "QubesVMInUseError"),
    Row(START, "", "admin.vm.Start kept-off", "QubesException"),
    Row("admin.vm.Shutdown+wait {q}", "", "admin.vm.Shutdown+now {q}", "ProtocolError", before=(START,)),
    Row("admin.vm.Pause {q}", "", "admin.vm.Pause dvm", NOT_RUNNING, before=(START,)),
    Row("admin.vm.Unpause {q}", "", "admin.vm.Unpause dvm", NOT_PAUSED, before=(START, "admin.vm.Pause {q}")),
    Row("admin.vm.Suspend {q}", "", "admin.vm.Suspend dvm", NOT_RUNNING, before=(START,)),
    Row("admin.vm.Resume {q}", "", "admin.vm.Resume dvm", NOT_PAUSED, before=(START, "admin.vm.Suspend {q}")),
    Row("admin.vm.Kill {q}", "", "admin.vm.Kill dvm", "QubesVMNotStartedError", before=(START,)),
    Row(
        "admin.vm.CurrentState {q}",
        "mem=0 mem_static_max=0 cputime=0 power_state=Halted",
        "admin.vm.CurrentState+all {q}",
        "ProtocolError",
    ),
    Row(
        "admin.Events {q}",
        "1\0\0connection-established\0\0",
        "admin.Events+domain-start {q}",
        "ProtocolError",
        stream=True,
    ),
]
