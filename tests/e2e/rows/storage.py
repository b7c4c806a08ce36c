"""Volumes of qubes, pools, and the volumes of pools."""

from __future__ import annotations

from tests.e2e.rows.row import Row

POOL, MIB = "varlibqubes", 1 << 20
PRIVATE = "appvms/{q}/private"
STORAGE, NO_REVISION = "StoragePoolException", "QubesVolumeRevisionNotFoundError"
NO_TOKEN, DENIED = "QubesVolumeCopyTokenNotFoundError", "PermissionDenied"
INFO = r"(?s)pool=varlibqubes\nvid=appvms/{q}/private\nsize=[0-9]+\n.*"
ID = r"[A-Za-z0-9:\-_.]+"
SNAPSHOT = ("admin.vm.volume.Snapshot+private {q}",)
NEW_POOL = ("admin.pool.Add+file dom0 name={q}-pool\ndir_path={root}/{q}-pool\n",)

OF_QUBES = [
    Row(
        "admin.vm.volume.List {q}",
        "root\nprivate\nvolatile\nkernel\n",
        "admin.vm.volume.List+x {q}",
        "ProtocolError",
    ),
    Row("admin.vm.volume.Info+private {q}", INFO, "admin.vm.volume.Info+none {q}", DENIED),
    Row(
        "admin.vm.volume.ListSnapshots+private {q}",
        f"{ID}\n",
        "admin.vm.volume.ListSnapshots+none {q}",
        DENIED,
        before=SNAPSHOT,
    ),
    Row("admin.vm.volume.Snapshot+private {q}", ID, "admin.vm.volume.Snapshot+volatile {q}", STORAGE),
    Row(
        "admin.vm.volume.Revert+private {q} {last}",
        "",
        "admin.vm.volume.Revert+private {q} none",
        NO_REVISION,
        before=SNAPSHOT,
    ),
    Row(
        "admin.vm.volume.CloneFrom+private {q}",
        "[A-Za-z0-9]{32}",
        "admin.vm.volume.CloneFrom+none {q}",
        DENIED,
    ),
    Row(
        "admin.vm.volume.CloneTo+private {q} {last}",
        "",
        "admin.vm.volume.CloneTo+private {q} " + "0" * 32,
        NO_TOKEN,
        before=("admin.vm.volume.CloneFrom+private caller",),
    ),
    Row(
        f"admin.vm.volume.Resize+private {{q}} {3072 * MIB}",
        "",
        f"admin.vm.volume.Resize+private {{q}} {1 << 60}",
        STORAGE,
    ),
    Row("admin.vm.volume.Clear+private {q}", "", "admin.vm.volume.Clear+volatile {q}", STORAGE),
    Row(
        "admin.vm.volume.Set.revisions_to_keep+private {q} 2",
        "",
        "admin.vm.volume.Set.revisions_to_keep+private {q} -2",
        "QubesValueError",
    ),
    Row(
        "admin.vm.volume.Set.rw+private {q} True",
        "",
        "admin.vm.volume.Set.rw+private {q} maybe",
        "ProtocolError",
    ),
    Row(
        "admin.vm.volume.Set.ephemeral+volatile {q} True",
        "",
        "admin.vm.volume.Set.ephemeral+private {q} True",
        "QubesValueError",
    ),
]
POOLS = [
    Row("admin.pool.List dom0", "(?s).*linux-kernel\n.*", "admin.pool.List {q}", "ProtocolError"),
    Row(
        "admin.pool.ListDrivers dom0", "(?s).*file-reflink .*", "admin.pool.ListDrivers {q}", "ProtocolError"
    ),
    Row(f"admin.pool.Info+{POOL} dom0", "(?s).*driver=file-reflink\n.*", "admin.pool.Info+none dom0", DENIED),
    Row(
        f"admin.pool.UsageDetails+{POOL} dom0",
        "data_size=[0-9]+\ndata_usage=[0-9]+\n",
        "admin.pool.UsageDetails+none dom0",
        DENIED,
    ),
    Row(
        "admin.pool.Add+file dom0 name={q}-new\ndir_path={root}/{q}-new\n",
        "",
        "admin.pool.Add+file dom0 name={q}-new\nsize=1\n",
        "ProtocolError",
    ),
    Row(
        "admin.pool.Remove+{q}-pool dom0",
        "",
        f"admin.pool.Remove+{POOL} dom0",
        "QubesPoolInUseError",
        before=NEW_POOL,
    ),
    Row(
        "admin.pool.Set.revisions_to_keep+{q}-pool dom0 1",
        "",
        "admin.pool.Set.revisions_to_keep+{q}-pool dom0 -2",
        "ProtocolError",
        before=NEW_POOL,
    ),
    Row(
        "admin.pool.Set.ephemeral_volatile+{q}-pool dom0 True",
        "",
        "admin.pool.Set.ephemeral_volatile+{q}-pool dom0 maybe",
        "ProtocolError",
        before=NEW_POOL,
    ),
]
OF_POOLS = [
    Row(
        f"admin.pool.volume.List+{POOL} dom0",
        "(?s).*appvms/caller/private\n.*",
        "admin.pool.volume.List+none dom0",
        DENIED,
    ),
    Row(
        f"admin.pool.volume.Info+{POOL} dom0 {PRIVATE}",
        INFO,
        f"admin.pool.volume.Info+{POOL} dom0 none",
        DENIED,
    ),
    Row(
        f"admin.pool.volume.ListSnapshots+{POOL} dom0 {PRIVATE}",
        f"{ID}\n",
        f"admin.pool.volume.ListSnapshots+{POOL} dom0 none",
        DENIED,
        before=SNAPSHOT,
    ),
    Row(
        f"admin.pool.volume.Snapshot+{POOL} dom0 {PRIVATE}",
        ID,
        f"admin.pool.volume.Snapshot+{POOL} dom0 none",
        DENIED,
    ),
    Row(
        f"admin.pool.volume.Revert+{POOL} dom0 {PRIVATE} {{last}}",
        "",
        f"admin.pool.volume.Revert+{POOL} dom0 {PRIVATE} none",
        NO_REVISION,
        before=SNAPSHOT,
    ),
    Row(
        f"admin.pool.volume.Resize+{POOL} dom0 {PRIVATE} {3072 * MIB}",
        "",
        f"admin.pool.volume.Resize+{POOL} dom0 {PRIVATE} {1 << 60}",
        STORAGE,
    ),
    Row(
        f"admin.pool.volume.Import+{POOL} dom0 {PRIVATE}\nall of it",
        "",
        f"admin.pool.volume.Import+{POOL} dom0 none\nall of it",
        DENIED,
    ),
    Row(
        f"admin.pool.volume.CloneFrom+{POOL} dom0 {PRIVATE}",
        "[A-Za-z0-9]{32}",
        f"admin.pool.volume.CloneFrom+{POOL} dom0 none",
        DENIED,
    ),
    Row(
        f"admin.pool.volume.CloneTo+{POOL} dom0 {PRIVATE} {{last}}",
        "",
        f"admin.pool.volume.CloneTo+{POOL} dom0 {PRIVATE} {'0' * 32}",
        NO_TOKEN,
        before=(f"admin.pool.volume.CloneFrom+{POOL} dom0 appvms/caller/private",),
    ),
    Row(
        f"admin.pool.volume.Set.revisions_to_keep+{POOL} dom0 {PRIVATE} 2",
        "",
        f"admin.pool.volume.Set.revisions_to_keep+{POOL} dom0 {PRIVATE} -2",
        "QubesValueError",
    ),
]

IMPORTS = [
    Row(
        f"internal.vm.volume.ImportBegin+private {{q}} {MIB}",
        f"{MIB} /.*-import.img",
        "internal.vm.volume.ImportBegin+none {q}",
        "ProtocolError",
    ),
    Row(
        "internal.vm.volume.ImportEnd+private {q} ok",
        "",
        "internal.vm.volume.ImportEnd+private {q} maybe",
        "ProtocolError",
        before=("internal.vm.volume.ImportBegin+private {q}",),
    ),
]

ROWS = [*IMPORTS, *OF_QUBES, *POOLS, *OF_POOLS]
