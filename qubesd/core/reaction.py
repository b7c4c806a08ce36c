"""The steps that an extension may add to a change: a draft, with the verbs of ``qubesd.extension.Change``."""

from __future__ import annotations

from qubesd.core.draft import Draft
from qubesd.core.features import drop_feature, put_feature
from qubesd.core.settings import put_property
from qubesd.core.tags import drop_tag, put_tag
from qubesd.errors import NoSuchQube
from qubesd.events import WireEvent
from qubesd.model import features
from qubesd.model.names import check_feature_name, check_feature_value, check_tag
from qubesd.model.state import Qube, System, Value
from qubesd.model.view import Host, Running


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
        own = self._find(qube).properties
        if name not in own or own[name] != value:
            put_property(self._draft, qube, name, value)

    def tell(self, event: WireEvent) -> None:
        self._draft.tell(event)

    def _find(self, name: str) -> Qube:
        found = self._draft.system.qubes.get(name)
        if found is None:
            raise NoSuchQube(f"no qube {name!r}")
        return found
