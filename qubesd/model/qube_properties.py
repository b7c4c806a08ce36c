"""The properties of every class of qubes (``spec/domains.md`` 3.1 to 3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from qubesd.model import boot, forms, memory, network, references, settings
from qubesd.model.lineage import default_netvm
from qubesd.model.property import REFERRING, Property, Settable, flag, number, reference, text
from qubesd.model.settings import constant, from_system, inherited
from qubesd.model.state import Klass

_NONE = constant(None)
_OFF = constant(False)
_ON = constant(True)
_NO = Settable.NO
_ONCE = Settable.ONCE

_EVERY = (
    text("name", "Name of the qube; fixed when it is made.", settable=_ONCE, stored=lambda qube: qube.name),
    text(
        "uuid",
        "Identity of the qube, for the hypervisor too.",
        settable=_ONCE,
        stored=lambda qube: qube.uuid,
    ),
    number("qid", "Number of the qube on this host.", settable=_ONCE, stored=lambda qube: qube.qid),
    Property(
        "label",
        "label",
        "Colour that stands for how far the qube is trusted.",
        forms.text,
        fits=references.label_fits,
        resettable=False,
    ),
    text("klass", "Class of the qube.", settings.klass, settable=_NO),
    text("icon", "Name of the icon, from class and label.", settings.icon, settable=_NO),
)

_DENIED = text(
    "devices_denied",
    "Interface codes of devices that may not be attached by hand.",
    constant(""),
    rule=settings.denied_rule,
)
_DISPOSABLE = reference(
    "default_dispvm",
    "Template of the disposables that this qube asks for.",
    from_system("default_dispvm"),
    fits=references.disposable_template_fits,
)
_BACKED_UP = flag("include_in_backups", "Whether a backup takes this qube unless told otherwise.", _ON)
_LAYOUT = text(
    "keyboard_layout",
    "Keyboard as layout+variant+options.",
    settings.keyboard_layout,
    rule=settings.keyboard_layout_rule,
)

_ADMIN = (
    text("icon", "Name of the icon.", constant("adminvm-black"), settable=_NO),
    _DENIED,
    _DISPOSABLE,
    _BACKED_UP,
    _LAYOUT,
    number("maxmem", "Most memory that dom0 can have, in MiB.", memory.dom0_maxmem, settable=_NO),
    flag("updateable", "Whether updates can be installed in this qube.", _ON, settable=_NO),
)

_LOCAL = (
    reference(
        "audiovm",
        "Qube that plays and records this one's sound.",
        from_system("default_audiovm"),
        fits=references.qube_fits,
    ),
    flag("autostart", "Whether the qube starts with the host.", _OFF),
    number("backup_timestamp", "Time of the last backup, in seconds since the epoch.", _NONE),
    text("bootmode", "Set of kernel options that the qube starts with.", boot.bootmode, stage=REFERRING),
    flag("debug", "Whether the qube starts with its console and messages shown.", _OFF),
    _DISPOSABLE,
    text(
        "default_user",
        "User that programs run as in this qube.",
        inherited("default_user", constant("user")),
        rule=settings.user_rule,
    ),
    _DENIED,
    text("dns", "Addresses of the name servers that the qube gets.", network.dns, settable=_NO),
    text("gateway", "IPv4 address that qubes behind this one use.", network.gateway, settable=_NO),
    text("gateway6", "IPv6 address that qubes behind this one use.", network.gateway6, settable=_NO),
    reference(
        "guivm",
        "Qube that shows this one's windows.",
        from_system("default_guivm"),
        fits=references.qube_fits,
    ),
    _BACKED_UP,
    flag("installed_by_rpm", "Whether a package owns this qube, which then cannot be removed.", _OFF),
    text("ip", "IPv4 address of the qube.", network.ip, coarse=forms.ipv4),
    text("ip6", "IPv6 address of the qube.", network.ip6, coarse=forms.ipv6),
    text(
        "kernel",
        "Version of the kernel that the qube starts with; empty for the boot loader on its own disk.",
        boot.kernel,
        rule=boot.kernel_rule,
        fits=boot.kernel_fits,
    ),
    text(
        "kernelopts",
        "Options of the kernel.",
        boot.kernelopts,
        stage=REFERRING,
        rule=boot.kernelopts_rule,
    ),
    _LAYOUT,
    text("mac", "Hardware address of the interface.", constant("00:16:3e:5e:6c:00"), coarse=forms.mac),
    reference(
        "management_dispvm",
        "Template of the disposables that configure this qube.",
        inherited("management_dispvm", from_system("management_dispvm")),
        fits=references.disposable_template_fits,
    ),
    number(
        "maxmem",
        "Most memory that the qube can grow to, in MiB; 0 keeps it as it started.",
        memory.maxmem,
        rule=memory.maxmem_rule,
        fits=memory.maxmem_fits,
        guards_reset=True,
    ),
    number("memory", "Memory that the qube starts with, in MiB.", memory.memory, rule=settings.positive_rule),
    reference(
        "netvm",
        "Qube that gives this one its network.",
        default_netvm,
        fits=network.netvm_fits,
        guards_reset=True,
    ),
    flag(
        "provides_network",
        "Whether this qube can be the netvm of others.",
        _OFF,
        fits=network.provides_network_fits,
        guards_reset=True,
    ),
    number(
        "qrexec_timeout",
        "Seconds that a starting qube has until its agent answers.",
        inherited("qrexec_timeout", from_system("default_qrexec_timeout")),
        rule=settings.positive_rule,
    ),
    number(
        "shutdown_timeout",
        "Seconds that the qube has to shut down.",
        inherited("shutdown_timeout", from_system("default_shutdown_timeout")),
        rule=settings.positive_rule,
    ),
    text("start_time", "Time of the start, in seconds since the epoch.", settings.start_time, settable=_NO),
    number("stubdom_mem", "Memory of the stub domain, in MiB.", _NONE, rule=settings.positive_rule),
    text("stubdom_uuid", "Identity of the stub domain.", settings.stubdom_uuid, settable=_NO),
    number("stubdom_xid", "Hypervisor's number of the stub domain.", settings.stubdom_xid, settable=_NO),
    number(
        "vcpus",
        "Number of virtual processors.",
        inherited("vcpus", constant(2)),
        rule=settings.vcpus_rule,
    ),
    text(
        "virt_mode",
        "Kind of virtualization: hvm, pv or pvh.",
        boot.virt_mode,
        rule=boot.virt_mode_rule,
        fits=boot.virt_mode_fits,
    ),
    text("visible_gateway", "IPv4 gateway that the qube sees.", network.visible_gateway, settable=_NO),
    text("visible_gateway6", "IPv6 gateway that the qube sees.", network.visible_gateway6, settable=_NO),
    text("visible_ip", "IPv4 address that the qube sees as its own.", network.visible_ip, settable=_NO),
    text("visible_ip6", "IPv6 address that the qube sees as its own.", network.visible_ip6, settable=_NO),
    text("visible_netmask", "IPv4 netmask that the qube sees.", network.visible_netmask, settable=_NO),
    number("xid", "Hypervisor's number of the running domain, -1 without one.", settings.xid, settable=_NO),
)

_OWN_ROOT = (flag("updateable", "Whether updates can be installed in this qube.", _ON, settable=_NO),)
_LENT_ROOT = (flag("updateable", "Whether updates can be installed in this qube.", _OFF, settable=_NO),)
_FOR_DISPOSABLES = (
    flag(
        "template_for_dispvms",
        "Whether disposables can be made from this qube.",
        _OFF,
        fits=references.template_for_dispvms_fits,
        guards_reset=True,
    ),
)
_TEMPLATE = (
    text(
        "appvm_default_bootmode",
        "Boot mode that qubes made from this template have.",
        boot.appvm_default_bootmode,
        stage=REFERRING,
    ),
)
_APP = (
    reference(
        "template",
        "Qube that this one takes its root volume from.",
        fits=references.app_template_fits,
        resettable=False,
    ),
)
_DISPVM = (
    reference(
        "template",
        "Qube that this disposable is made from.",
        fits=references.disposable_own_template_fits,
        resettable=False,
    ),
    number("dispid", "Number of the disposable.", settable=_ONCE, stored=lambda qube: qube.dispid),
    flag("auto_cleanup", "Whether the qube is removed after it stopped.", _OFF),
    flag("is_preload", "Whether the disposable waits to be handed out.", settings.is_preload, settable=_NO),
    flag("include_in_backups", "Whether a backup takes this qube unless told otherwise.", settings.backed_up),
    reference(
        "default_dispvm",
        "Template of the disposables that this qube asks for.",
        settings.own_template,
        fits=references.disposable_template_fits,
    ),
)
_REMOTE = (
    flag("include_in_backups", "Whether a backup takes this qube unless told otherwise.", _OFF),
    reference("relayvm", "Qube that carries calls to the other host.", _NONE, fits=references.qube_fits),
    text("transport_rpc", "Service that the relay uses.", _NONE),
    text("remote_name", "Name of the qube on its own host.", _NONE),
)


def _table(*parts: Iterable[Property]) -> Mapping[str, Property]:
    """The properties in list order; a later part puts its own in the place of an earlier one's."""
    lines = {line.name: line for part in parts for line in part}
    return MappingProxyType(dict(sorted(lines.items(), key=lambda item: (item[1].stage, item[0]))))


TABLES: Mapping[Klass, Mapping[str, Property]] = MappingProxyType(
    {
        Klass.ADMIN: _table(_EVERY, _ADMIN),
        Klass.TEMPLATE: _table(_EVERY, _LOCAL, _OWN_ROOT, _TEMPLATE),
        Klass.STANDALONE: _table(_EVERY, _LOCAL, _OWN_ROOT, _FOR_DISPOSABLES),
        Klass.APP: _table(_EVERY, _LOCAL, _LENT_ROOT, _FOR_DISPOSABLES, _APP),
        Klass.DISPOSABLE: _table(_EVERY, _LOCAL, _LENT_ROOT, _DISPVM),
        Klass.REMOTE: _table(_EVERY, _REMOTE),
    }
)
