"""The global properties (``spec/domains.md`` 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qubesd.model import boot, network, references, settings
from qubesd.model.property import SYSTEM, Property, Settable, flag, number, reference, text
from qubesd.model.settings import SYSTEM_DEFAULTS, constant


def _fixed(name: str) -> dict[str, Any]:
    return {"default": constant(SYSTEM_DEFAULTS[name]), "stage": SYSTEM}


def _qube(name: str, doc: str, fits: Any = references.qube_fits) -> Property:
    return reference(name, doc, fits=fits, **_fixed(name))


def _seconds(name: str, doc: str) -> Property:
    return number(name, doc, rule=settings.positive_rule, **_fixed(name))


def _pool(name: str, doc: str, default: Any = settings.from_default_pool) -> Property:
    return text(name, doc, default, stage=SYSTEM, fits=settings.pool_fits)


_LINES = (
    flag("check_updates_vm", "Whether new qubes look for updates.", **_fixed("check_updates_vm")),
    _qube("clockvm", "Qube that the host takes its time from."),
    _qube("default_audiovm", "Qube that plays and records sound unless a qube says otherwise."),
    _qube(
        "default_dispvm",
        "Template of disposables unless a qube says otherwise.",
        references.disposable_template_fits,
    ),
    _qube("default_guivm", "Qube that shows windows unless a qube says otherwise."),
    text(
        "default_kernel",
        "Kernel that qubes start with unless they say otherwise.",
        stage=SYSTEM,
        rule=boot.kernel_rule,
        fits=boot.kernel_fits,
    ),
    _qube(
        "default_netvm", "Qube that gives network unless a qube says otherwise.", network.default_netvm_fits
    ),
    _pool("default_pool", "Pool of new volumes.", settings.default_pool),
    _pool("default_pool_kernel", "Pool of new volumes named kernel."),
    _pool("default_pool_private", "Pool of new volumes named private."),
    _pool("default_pool_root", "Pool of new volumes named root."),
    _pool("default_pool_volatile", "Pool of new volumes named volatile."),
    _seconds("default_qrexec_timeout", "Seconds that a starting qube has until its agent answers."),
    _seconds("default_shutdown_timeout", "Seconds that a qube has to shut down."),
    reference(
        "default_template",
        "Template of new qubes made without one.",
        stage=SYSTEM,
        fits=references.template_fits,
    ),
    _qube(
        "management_dispvm",
        "Template of the disposables that configure other qubes.",
        references.disposable_template_fits,
    ),
    number("maxmem", "Memory of the host, in MiB.", settings.host_memory, stage=SYSTEM, settable=Settable.NO),
    number("no_cpus", "Processors of the host.", settings.host_cpus, stage=SYSTEM, settable=Settable.NO),
    _seconds("stats_interval", "Seconds between two rounds of statistics."),
    _qube("updatevm", "Qube that fetches updates for dom0."),
)

GLOBALS: Mapping[str, Property] = MappingProxyType({line.name: line for line in _LINES})
