"""Defaults and rules of the properties that need but a few lines each; larger subjects have files of their
own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qubesd.errors import BadPropertyValue, BadValue
from qubesd.model.lineage import named, own, template_of
from qubesd.model.property import Default
from qubesd.model.references import is_preloaded, makes_disposables
from qubesd.model.state import DOM0, Klass, Qube, Value
from qubesd.model.view import View

SYSTEM_DEFAULTS: Mapping[str, Value] = {
    "check_updates_vm": True,
    "clockvm": None,
    "default_audiovm": DOM0,
    "default_dispvm": None,
    "default_guivm": DOM0,
    "default_netvm": None,
    "default_qrexec_timeout": 60,
    "default_shutdown_timeout": 60,
    "management_dispvm": None,
    "stats_interval": 3,
    "updatevm": None,
}
"""The defaults of the global properties that have a fixed one; times are in seconds."""

_LAYOUT = re.compile(r"[A-Za-z]+\+[A-Za-z0-9_-]*\+[A-Za-z0-9_:,-]*")
_USER = re.compile(r"[A-Za-z0-9_+,.-]*")
_DENIED = re.compile(r"([bump*][0-9a-f*]{6})*")
_CODE = 7


def constant(value: Value) -> Default:
    return lambda view, owner: value


def from_system(name: str) -> Default:
    """What the global property of that name is now, one of those with a fixed default."""
    otherwise = SYSTEM_DEFAULTS[name]
    return lambda view, owner: view.system.properties.get(name, otherwise)


def inherited(name: str, otherwise: Default) -> Default:
    """What the template has, live; for a qube without template what ``otherwise`` says."""

    def default(view: View, owner: Qube) -> Value:
        template = template_of(view.system, owner)
        return otherwise(view, owner) if template is None else own(view, template, name, default)

    return default


def own_template(view: View, qube: Qube) -> Value:
    return qube.properties.get("template")


def icon(view: View, qube: Qube) -> Value:
    label = qube.properties["label"]
    if qube.klass is Klass.TEMPLATE or (qube.klass is Klass.APP and makes_disposables(qube)):
        return f"templatevm-{label}"
    if qube.features.get("servicevm"):
        return f"servicevm-{label}"
    return f"{qube.klass.lower()}-{label}"


def keyboard_layout(view: View, qube: Qube) -> Value:
    """The layout of the qube that shows this one's windows, or of the one that shows that one's, and so
    on."""
    seen = {qube.name}
    step = _guivm(view, qube)
    while step is not None and step.name not in seen:
        if "keyboard_layout" in step.properties:
            return step.properties["keyboard_layout"]
        seen.add(step.name)
        step = _guivm(view, step)
    return "us++"


def keyboard_layout_rule(value: str) -> Value:
    if _LAYOUT.fullmatch(value) is None:
        raise BadPropertyValue(f"expected LAYOUT+VARIANT+OPTIONS such as 'us++', found {value[:64]!r}")
    return value


def user_rule(value: str) -> Value:
    if _USER.fullmatch(value) is None:
        raise BadPropertyValue(f"{value[:64]!r} is no user name: use letters, digits and '_-+,.'")
    return value


def denied_rule(value: str) -> Value:
    """Interface codes of seven characters each, sorted, none twice (``spec/devices.md`` 2)."""
    if len(value) % _CODE:
        raise BadValue(f"interface codes have {_CODE} characters each")
    if _DENIED.fullmatch(value) is None:
        raise BadPropertyValue("an interface code is one of b, u, m, p, * and six of 0-9, a-f, *")
    return "".join(sorted({value[start : start + _CODE] for start in range(0, len(value), _CODE)}))


MAX_VCPUS = 8_192
"""The most that Xen's interface has for one domain."""


def positive_rule(value: int) -> Value:
    if value <= 0:
        raise BadPropertyValue(f"expected more than 0, found {value}")
    return value


def vcpus_rule(value: int) -> Value:
    """Hypervisors take memory for each processor that a domain could have, so that no number may be left to
    them."""
    if not 0 < value <= MAX_VCPUS:
        raise BadPropertyValue(f"expected 1 to {MAX_VCPUS}, found {value}")
    return value


def is_preload(view: View, qube: Qube) -> Value:
    return is_preloaded(view, qube)


def backed_up(view: View, qube: Qube) -> Value:
    """A disposable that cleans up after itself is not worth a backup."""
    return qube.properties.get("auto_cleanup") is not True


def klass(view: View, qube: Qube) -> Value:
    return str(qube.klass)


def start_time(view: View, qube: Qube) -> Value:
    started = view.running(qube.name).start_time
    return None if started is None else str(started)


def xid(view: View, qube: Qube) -> Value:
    return view.running(qube.name).xid


def stubdom_xid(view: View, qube: Qube) -> Value:
    return view.running(qube.name).stubdom_xid


def stubdom_uuid(view: View, qube: Qube) -> Value:
    return view.running(qube.name).stubdom_uuid


def default_pool(view: View, owner: None) -> Value:
    """``default`` where a pool is called so, else the one that a fresh system has at its base directory."""
    return next((name for name in ("default", "varlibqubes") if name in view.system.pools), None)


def from_default_pool(view: View, owner: None) -> Value:
    properties = view.system.properties
    return properties["default_pool"] if "default_pool" in properties else default_pool(view, None)


def pool_fits(view: View, owner: None, value: str) -> Value:
    if value not in view.system.pools:
        raise BadPropertyValue(f"no pool {value[:64]!r}")
    return value


def host_memory(view: View, owner: None) -> Value:
    return view.host.memory


def host_cpus(view: View, owner: None) -> Value:
    return view.host.cpus


_default_guivm = from_system("default_guivm")


def _guivm(view: View, qube: Qube) -> Qube | None:
    """The qube that shows this one's windows; dom0 shows its own."""
    return None if qube.klass is Klass.ADMIN else named(view.system, own(view, qube, "guivm", _default_guivm))
