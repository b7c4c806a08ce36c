"""Properties, features, tags and labels."""

from __future__ import annotations

from tests.e2e.rows.row import Row

NO_PROPERTY, NO_FEATURE = "QubesNoSuchPropertyError", "QubesFeatureNotFoundError"
NO_LABEL = "QubesLabelNotFoundError"
FEATURE = ("admin.vm.feature.Set+colour {q} blue",)
LABEL = ("admin.label.Create+{q}-label dom0 0x00ff7f",)

SYSTEM = [
    Row("admin.property.List dom0", "(?s).*\ndefault_netvm\n.*", "admin.property.List {q}", "ProtocolError"),
    Row("admin.property.GetAll dom0", "(?s).*default_netvm .*", "admin.property.GetAll {q}", "ProtocolError"),
    Row(
        "admin.property.Get+default_netvm dom0",
        "default=True type=vm ",
        "admin.property.Get+netvm dom0",
        NO_PROPERTY,
    ),
    Row(
        "admin.property.GetDefault+stats_interval dom0",
        "type=int 3",
        "admin.property.GetDefault+netvm dom0",
        NO_PROPERTY,
    ),
    Row(
        "admin.property.Set+default_shutdown_timeout dom0 90",
        "",
        "admin.property.Set+default_shutdown_timeout dom0 soon",
        "QubesValueError",
    ),
    Row("admin.property.Reset+management_dispvm dom0", "", "admin.property.Reset+netvm dom0", NO_PROPERTY),
]
OF_QUBES = [
    Row("admin.vm.property.List {q}", "(?s).*\nnetvm\n.*", "admin.vm.property.List+x {q}", "ProtocolError"),
    Row(
        "admin.vm.property.GetAll {q}",
        "(?s).*\nname default=False type=str {q}\n.*",
        "admin.vm.property.GetAll+x {q}",
        "ProtocolError",
    ),
    Row(
        "admin.vm.property.Get+label {q}",
        "default=False type=label red",
        "admin.vm.property.Get+colour {q}",
        NO_PROPERTY,
    ),
    Row(
        "admin.vm.property.GetDefault+memory {q}",
        "type=int 400",
        "admin.vm.property.GetDefault+colour {q}",
        NO_PROPERTY,
    ),
    Row(
        "admin.vm.property.Set+memory {q} 600",
        "",
        "admin.vm.property.Set+netvm {q} {q}-none",
        "QubesPropertyValueError",
    ),
    Row(
        "admin.vm.property.Reset+memory {q}",
        "",
        "admin.vm.property.Reset+label {q}",
        "QubesValueError",
        before=("admin.vm.property.Set+memory {q} 600",),
    ),
]
HELP = [
    Row(f"{family}.{call}+{name} {target}", "[^\n]{10,}", f"{family}.{call}+colour {target}", NO_PROPERTY)
    for family, name, target in (
        ("admin.property", "default_netvm", "dom0"),
        ("admin.vm.property", "netvm", "{q}"),
    )
    for call in ("Help", "HelpRst")
]
CHAINS = [
    Row(
        f"admin.vm.feature.CheckWith{chain}+colour {{q}}",
        "blue",
        f"admin.vm.feature.CheckWith{chain}+other {{q}}",
        NO_FEATURE,
        before=FEATURE,
    )
    for chain in ("Template", "Netvm", "AdminVM", "TemplateAndAdminVM")
]

ROWS = [
    *SYSTEM,
    *OF_QUBES,
    *HELP,
    Row(
        "admin.vm.feature.List {q}",
        "(?s).*colour\n.*",
        "admin.vm.feature.List+x {q}",
        "ProtocolError",
        before=FEATURE,
    ),
    Row(
        "admin.vm.feature.Get+colour {q}",
        "blue",
        "admin.vm.feature.Get+other {q}",
        NO_FEATURE,
        before=FEATURE,
    ),
    *CHAINS,
    Row("admin.vm.feature.Set+x {q} 1", "", "admin.vm.feature.Set+x {q} \x7f", "ProtocolError"),
    Row(
        "admin.vm.feature.Remove+colour {q}",
        "",
        "admin.vm.feature.Remove+other {q}",
        NO_FEATURE,
        before=FEATURE,
    ),
    Row("admin.vm.tag.List {q}", "(?s).*created-by-dom0\n.*", "admin.vm.tag.List+x {q}", "ProtocolError"),
    Row("admin.vm.tag.Get+blue {q}", "0", "admin.vm.tag.Get+a.b {q}", "QubesInvalidTagError"),
    Row("admin.vm.tag.Set+blue {q}", "", "admin.vm.tag.Set+created-by-x {q}", "PermissionDenied"),
    Row(
        "admin.vm.tag.Remove+blue {q}",
        "",
        "admin.vm.tag.Remove+green {q}",
        "QubesTagNotFoundError",
        before=("admin.vm.tag.Set+blue {q}",),
    ),
    Row("admin.label.List dom0", "(?s)red\norange\n.*", "admin.label.List {q}", "ProtocolError"),
    Row("admin.label.Get+red dom0", "0xcc0000", "admin.label.Get+none dom0", NO_LABEL),
    Row("admin.label.Index+black dom0", "8", "admin.label.Index+none dom0", NO_LABEL),
    Row(
        "admin.label.Create+{q}-new dom0 0x00ff7f",
        "",
        "admin.label.Create+{q}-bad dom0 green",
        "QubesInvalidLabelValueError",
    ),
    Row(
        "admin.label.Remove+{q}-label dom0", "", "admin.label.Remove+red dom0", "ProtocolError", before=LABEL
    ),
]
