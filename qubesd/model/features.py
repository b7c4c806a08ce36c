"""Features: look-ups along the chains, and the rules that go by a feature's name (``spec/domains.md`` 4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from qubesd.errors import BadValue
from qubesd.model.lineage import named, netvms, templates
from qubesd.model.owner import OWNER
from qubesd.model.state import Klass, Qube
from qubesd.model.view import View

BALANCED = "service.meminfo-writer"

_DIGITS = re.compile(r"[0-9]{1,9}")
_DELAY = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?")
_CONFIG_NAME = re.compile(r"[A-Za-z].{0,51}")
_PERSIST_NAME = re.compile(r".{1,54}")
_PERSISTED = re.compile(r"((file|dir):[^:/]+:[^:/]+:[0-7]{3,4}:)?/.*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST_SERVICE = 48
_PRELOADING = ("qrexec", "supported-rpc.qubes.WaitForRunningSystem", "supported-rpc.qubes.WaitForSession")


def with_template(view: View, qube: Qube, name: str) -> str | None:
    """The text of the first of qube, template, template's template that has the feature; empty is a hit."""
    return first(templates(view.system, qube), name)


def with_netvm(view: View, qube: Qube, name: str) -> str | None:
    """The same along the netvms."""
    return first(netvms(view.system, qube), name)


def first(chain: Iterable[Qube], name: str) -> str | None:
    """The text of the first qube of the chain that has the feature; empty is a hit."""
    for qube in chain:
        if name in qube.features:
            return qube.features[name]
    return None


def check(view: View, qube: Qube, name: str, value: str) -> None:
    """Refuse a value that the feature of this name cannot have on this qube.

    Raises:
        BadValue: which feature, and what it takes.
    """
    if name == BALANCED and qube.klass in (Klass.ADMIN, Klass.REMOTE):
        raise BadValue(f"qube {qube.name!r} has no memory to balance")
    if name in _BY_NAME:
        _BY_NAME[name](view, qube, value)
        return
    prefix, dot, rest = name.partition(".")
    if dot and prefix in _BY_PREFIX:
        _BY_PREFIX[prefix](rest, value)


def apply(qube: Qube, name: str, value: str) -> Qube:
    """The qube with the feature set. ``service.meminfo-writer`` is no feature but an older way to say
    ``maxmem``: true leaves it to its default, false makes it 0. dom0 and a RemoteVM have no memory of theirs
    to balance."""
    if name != BALANCED:
        return qube.with_feature(name, value)
    without = qube.without_feature(name)
    if qube.klass in (Klass.ADMIN, Klass.REMOTE):
        return without
    return without.without_property("maxmem") if value else without.with_property("maxmem", 0)


def _service(service: str, value: str) -> None:
    if not service or service in (".", "..") or "/" in service:
        raise BadValue(f"{service[:64]!r} is no name for a service")
    if len(service.encode()) > _LONGEST_SERVICE and not service.startswith("app-dispvm."):
        raise BadValue(f"a service's name has at most {_LONGEST_SERVICE} bytes")


def _vm_config(entry: str, value: str) -> None:
    if _CONFIG_NAME.fullmatch(entry) is None:
        raise BadValue("after 'vm-config.' comes a name of 1 to 52 bytes, first a letter")


def _custom_persist(entry: str, value: str) -> None:
    if _PERSIST_NAME.fullmatch(entry) is None:
        raise BadValue("after 'custom-persist.' comes a name of 1 to 54 bytes")
    if _PERSISTED.fullmatch(value) is None:
        raise BadValue("expected a path from /, bare or after file: or dir: and OWNER:GROUP:MODE:")


def _preload_max(view: View, qube: Qube, value: str) -> None:
    if _DIGITS.fullmatch(value) is None:
        raise BadValue("'preload-dispvm-max' is a number")
    template: Qube | None = qube
    if qube.klass is Klass.ADMIN:
        # dom0 holds the number for whatever qube is the default template of disposables.
        template = named(view.system, view.system.properties.get("default_dispvm"))
    if template is not None:
        for needed in _PRELOADING:
            if not with_template(view, template, needed):
                raise BadValue(f"preloading needs the feature {needed!r}")


def _preload_delay(view: View, qube: Qube, value: str) -> None:
    if _DELAY.fullmatch(value) is None:
        raise BadValue("'preload-dispvm-delay' is a number of seconds")


def _preload_threshold(view: View, qube: Qube, value: str) -> None:
    if qube.klass is not Klass.ADMIN:
        raise BadValue("'preload-dispvm-threshold' belongs to dom0")
    if _DIGITS.fullmatch(value) is None:
        raise BadValue("'preload-dispvm-threshold' is a number of MiB")


def _owner(view: View, qube: Qube, value: str) -> None:
    if qube.klass is Klass.ADMIN:
        raise BadValue("dom0 has no owner")
    if _UUID.fullmatch(value) is None:
        raise BadValue(f"{OWNER!r} is the uuid of a qube, in small letters")


_BY_NAME: dict[str, Callable[[View, Qube, str], None]] = {
    OWNER: _owner,
    "preload-dispvm-max": _preload_max,
    "preload-dispvm-delay": _preload_delay,
    "preload-dispvm-threshold": _preload_threshold,
}
_BY_PREFIX: dict[str, Callable[[str, str], None]] = {
    "service": _service,
    "vm-config": _vm_config,
    "custom-persist": _custom_persist,
}
