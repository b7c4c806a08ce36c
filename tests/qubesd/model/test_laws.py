"""What holds of every property in every system."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qubesd.errors import QubesError
from qubesd.model.properties import GLOBALS, check_reset, find, read, read_default, table
from qubesd.model.state import Qube, System
from qubesd.store.xml import dump, load
from tests.qubesd.model.views import StillView
from tests.qubesd.store.systems import systems

SLOW = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=40, deadline=None
)
TYPES = {"str": str, "int": int, "bool": bool, "vm": str, "label": str}


def owners(system: System) -> list[Qube | None]:
    return [None, *system.qubes.values()]


def names(owner: Qube | None) -> list[str]:
    return list(GLOBALS if owner is None else table(owner.klass))


@SLOW
@given(systems())
def test_every_property_can_be_read_and_is_of_its_type(system: System) -> None:
    view = StillView(system)
    for owner in owners(system):
        for name in names(owner):
            reading = read(view, owner, name)
            assert reading.value is None or type(reading.value) is TYPES[find(owner, name).type]
            if reading.is_default:
                assert reading == read_default(view, owner, name)


@SLOW
@given(systems(), st.data())
def test_a_value_is_refused_or_can_be_stored_and_read_back(system: System, data: st.DataObject) -> None:
    view = StillView(system)
    owner = data.draw(st.sampled_from(owners(system)))
    name = data.draw(st.sampled_from(names(owner)))
    some = [
        b"",
        b"0",
        b"7",
        b"True",
        b"us++",
        b"b******",
        b"10.0.0.1",
        *(one.encode() for one in system.qubes),
    ]
    payload = data.draw(st.sampled_from(some) | st.binary(max_size=20))
    line = find(owner, name)
    try:
        value = line.check(view, owner, line.coarse(payload))
    except QubesError:
        return
    if owner is None:
        changed = system.with_property(name, value)
    else:
        changed = system.with_qube(owner.with_property(name, value))
    kept = load(dump(changed))
    after = kept.properties if owner is None else kept.qubes[owner.name].properties
    assert after[name] == value
    assert type(after[name]) is type(value)
    assert read(replace(view, system=kept), owner and kept.qubes[owner.name], name).value == value


@SLOW
@given(systems())
def test_a_reset_is_refused_or_leaves_the_default(system: System) -> None:
    view = StillView(system)
    for owner in system.qubes.values():
        for name in owner.properties.keys() & table(owner.klass).keys():
            try:
                check_reset(view, owner, name)
            except QubesError:
                continue
            after = owner.without_property(name)
            reading = read(replace(view, system=system.with_qube(after)), after, name)
            assert reading.is_default
            assert reading.has_value
