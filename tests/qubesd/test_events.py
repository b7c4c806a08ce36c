"""What an event tells is also told by a call, which the event names, so that hiding one hides the other."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields

import pytest

import qubesd
from qubesd.api.method import Access
from qubesd.api.table import METHODS
from qubesd.events import FeatureSet, PropertySet, Read, TagAdded, WireEvent

NO_SECRET = {
    # Of the event's own qube, and of what was asked with it.
    *("subject", "start_guid", "mem_required", "reason", "force", "delay"),
    # A qube that it names as ``vm`` is judged as its subject is.
    *("qube", "client"),
}


def kinds() -> list[type[WireEvent]]:
    """The classes of events. (Those with slots were made twice, of which the modules have the second.)"""
    found = {}
    for place in pkgutil.walk_packages(qubesd.__path__, "qubesd."):
        module = importlib.import_module(place.name)
        for one in vars(module).values():
            if isinstance(one, type) and issubclass(one, WireEvent):
                found[one.__qualname__] = one
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in kinds()])
def test_an_event_that_tells_a_value_says_what_else_answers_it(kind: type[WireEvent]) -> None:
    told = {field.name for field in fields(kind)} - NO_SECRET
    if told:
        assert kind.reads is not WireEvent.reads, f"tells {', '.join(sorted(told))}"


@pytest.mark.parametrize(
    ("event", "want"),
    [
        pytest.param(
            PropertySet("work", "netvm", newvalue="net"),
            Read("admin.vm.property.Get", "netvm", "work"),
            id="property",
        ),
        pytest.param(
            PropertySet(None, "default_netvm", newvalue="net"),
            Read("admin.property.Get", "default_netvm", "dom0"),
            id="global-property",
        ),
        pytest.param(
            FeatureSet("work", "gui", "1"), Read("admin.vm.feature.Get", "gui", "work"), id="feature"
        ),
        pytest.param(TagAdded("work", "blue"), Read("admin.vm.tag.Get", "blue", "work"), id="tag"),
    ],
)
def test_what_answers_it_is_a_read_of_the_same(event: WireEvent, want: Read) -> None:
    assert event.reads() == (want,)
    assert METHODS[want.service].access is Access.READ
