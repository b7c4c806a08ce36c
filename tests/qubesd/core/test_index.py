"""Who names a qube, kept the other way round, is what looking at every qube would find."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from qubesd.bus import Bus
from qubesd.core.index import Index, references
from qubesd.events import QubeChanged, SystemRestored
from qubesd.model.state import DOM0, System
from tests.qubesd.store.systems import systems


def looked_up(system: System) -> dict[str, list[str]]:
    """By every name that is named at all, who names it."""
    found: dict[str, list[str]] = {}
    for qube in sorted(system.qubes.values(), key=lambda qube: qube.name):
        for name in references(qube):
            found.setdefault(name, []).append(qube.name)
    return found


@settings(max_examples=40)
@given(st.lists(st.tuples(systems(), st.booleans(), st.booleans()), min_size=1, max_size=5))
def test_it_follows_every_change(steps: list[tuple[System, bool, bool]]) -> None:
    """One system after another takes the place of the one before, with or without a question in between."""
    bus, now = Bus(), System()
    referrers = Index(bus, lambda: now, references)
    named = {DOM0}
    for system, restored, asked in steps:
        before, now = now, system
        named |= {*before.qubes, *now.qubes, *looked_up(before), *looked_up(now)}
        if restored:
            bus.publish(SystemRestored())
        else:
            for name in {*before.qubes, *now.qubes}:
                bus.publish(QubeChanged(name))
        if asked:
            wanted = looked_up(now)
            assert {name: referrers.of(name) for name in named} == {
                name: wanted.get(name, []) for name in named
            }
    assert all(referrers.of(name) == looked_up(now).get(name, []) for name in named)


def test_an_unknown_name_has_none() -> None:
    assert Index(Bus(), System, references).of("nobody") == []
