"""The steps that an extension may add to a change: a draft, with the verbs of ``qubesd.extension.Change``."""

from __future__ import annotations

from qubesd import events
from qubesd.core import device_events, power_events
from qubesd.core.draft import Draft
from qubesd.core.features import drop_feature, put_feature
from qubesd.core.settings import put_property
from qubesd.core.tags import drop_tag, put_tag
from qubesd.errors import BadPropertyValue, NoSuchQube
from qubesd.events import Read, WireEvent
from qubesd.model import features
from qubesd.model.names import check_feature_name, check_feature_value, check_tag
from qubesd.model.properties import find
from qubesd.model.property import Property
from qubesd.model.state import Qube, System, Value
from qubesd.model.view import Host, Running

_OURS = tuple(module.__name__ for module in (events, power_events, device_events))
"""Where the events are that mean what they say: the core acts on them."""


class Reaction:
    """Satisfies ``Change``."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    @property
    def system(self) -> System:
        return self._draft.system

    @property
    def host(self) -> Host:
        return self._draft.host

    def running(self, name: str) -> Running:
        return self._draft.running(name)

    def kernels(self) -> frozenset[str]:
        return self._draft.kernels()

    def kernel_options(self, version: str, pci: bool) -> str | None:
        return self._draft.kernel_options(version, pci)

    def set_feature(self, qube: str, name: str, value: str) -> None:
        owner = self._find(qube)
        check_feature_name(name)
        check_feature_value(value.encode())
        features.check(self._draft, owner, name, value)
        if owner.features.get(name) != value:
            put_feature(self._draft, qube, name, value)

    def remove_feature(self, qube: str, name: str) -> None:
        self._find(qube)
        drop_feature(self._draft, qube, name)

    def add_tag(self, qube: str, tag: str) -> None:
        self._find(qube)
        put_tag(self._draft, qube, check_tag(tag))

    def remove_tag(self, qube: str, tag: str) -> None:
        self._find(qube)
        drop_tag(self._draft, qube, tag)

    def set_property(self, qube: str, name: str, value: Value) -> None:
        owner = self._find(qube)
        typed = _typed(find(owner, name), value)
        if name not in owner.properties or owner.properties[name] != typed:
            put_property(self._draft, qube, name, typed)

    def tell(self, event: WireEvent) -> None:
        _check_event(event)
        if event.subject is not None:
            self._find(event.subject)
        self._draft.tell(event)

    def _find(self, name: str) -> Qube:
        found = self._draft.system.qubes.get(name)
        if found is None:
            raise NoSuchQube(f"no qube {name!r}")
        return found


def _typed(line: Property, value: Value) -> Value:
    """What the API makes of the value's text, so that nothing is kept that it would not take. Raises
    ``BadValue``."""
    if value is None:
        if line.type != "vm":
            raise BadPropertyValue(f"property {line.name!r} cannot be none")
        return None
    return line.coarse(str(value).encode())


def _check_event(event: WireEvent) -> None:
    """Before the change is made, for nothing is taken back when it is told.

    Raises:
        TypeError: it is none, or cannot go over the wire.
        ValueError: it is for the daemon to tell.
    """
    if not isinstance(event, WireEvent):
        raise TypeError(f"expected a WireEvent, found {event!r}")
    if type(event).__module__ in _OURS or event.ahead:
        raise ValueError(f"{type(event).__name__} is for the daemon to tell, when it is so")
    if not isinstance(event.wire_name, str) or not event.wire_name:
        raise TypeError(f"{event!r} has no name")
    told = event.keys()
    for key, value in told:
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise TypeError(
                f"{event!r} holds {key!r}: {value!r}; expected texts, and a key that is not empty"
            )
    for read in event.reads():
        if not isinstance(read, Read):
            raise TypeError(f"{event!r} has {read!r} among its reads; expected a Read")
