"""What guests announce of themselves, taken over as features of their qubes (``spec/wire-protocol.md`` 8).

A guest whose root comes from a template is not asked about its system: the template is. A value of another
form than a feature takes is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date

from qubesd.core.guest_events import FeaturesRequest, TemplatePostinstall
from qubesd.errors import QubeNotHalted
from qubesd.extension import Change, Extension, on
from qubesd.model.state import Klass, Qube

_FLAGS: Mapping[str, str] = {"0": "", "1": "1"}
_FIRST_TIME = ("qrexec", "gui", "gui-emulated")
"""Only the first word on these counts: the user may have decided otherwise since."""
_ALWAYS = ("qubes-firewall", "vmexec")

_VERSION = re.compile(r"[0-9][0-9.-]*")
_AGENT = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_WINDOWS = {
    "stubdom-qrexec": "1",
    "audio-model": "ich6",
    "timezone": "localtime",
    "no-monitor-layout": "1",
}
"""What a Windows guest with an agent needs, unless the qube or its template says otherwise."""


def has_own_root(qube: Qube) -> bool:
    """Whether what runs in the qube is its own and not its template's."""
    return qube.klass not in (Klass.APP, Klass.DISPOSABLE)


def _take(change: Change, event: FeaturesRequest) -> None:
    qube, asked = change.system.qubes[event.subject], event.untrusted_features
    if not has_own_root(qube):
        return
    for name, fits in _FORMS.items():
        untrusted_value = asked.get(name)
        if untrusted_value is not None and fits(untrusted_value):
            change.set_feature(qube.name, name, untrusted_value)
    for name in _ALWAYS:
        if asked.get(name) in _FLAGS:
            change.set_feature(qube.name, name, _FLAGS[asked[name]])
    if asked.get("anon-timezone") == "1":
        change.set_feature(qube.name, "anon-timezone", "1")
    if asked.get("os") == "Windows" and asked.get("qrexec") == "1":
        _set_up_windows(change, qube)  # before 'qrexec', with which memory could move
    for name in _FIRST_TIME:
        if name not in qube.features and asked.get(name) in _FLAGS:
            change.set_feature(qube.name, name, _FLAGS[asked[name]])
    if change.system.qubes[qube.name].features.get("qrexec") and not qube.features.get("qrexec"):
        change.tell(TemplatePostinstall(qube.name))


def _set_up_windows(change: Change, qube: Qube) -> None:
    change.set_feature(qube.name, "rpc-clipboard", "1")
    with suppress(QubeNotHalted):  # somebody had it balance its memory; it does until they think again
        change.set_property(qube.name, "maxmem", 0)
    change.set_property(qube.name, "qrexec_timeout", 6000)
    for name, value in _WINDOWS.items():
        if name not in qube.features:
            change.set_feature(qube.name, name, value)


def _is_date(value: str) -> bool:
    if _DATE.fullmatch(value) is None:
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


_FORMS: Mapping[str, Callable[[str], object]] = {
    "os": ("Linux", "Windows").__contains__,
    "os-distribution": bool,
    "os-distribution-like": bool,
    "os-version": _VERSION.fullmatch,
    "os-eol": _is_date,
    "qubes-agent-version": _AGENT.fullmatch,
}

EXTENSION = Extension(reactions=(on(FeaturesRequest, _take),))
