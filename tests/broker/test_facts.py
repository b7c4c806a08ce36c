"""The world of the policy: derived from change to change, always what a new look would give."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.facts import Facts, facts_of
from policy_engine import World
from qubesd.config import rooted
from qubesd.core.core import Core
from qubesd.core.opening import open_core
from qubesd.model.state import Klass, Qube, Value
from qubesd.model.view import Running

NAMES = ("a", "b", "c", "d")
UUIDS = tuple(f"{number:08x}-0000-4000-8000-000000000000" for number in range(1, 7))
BASED = frozenset((Klass.APP, Klass.DISPOSABLE))

Change = Callable[[Core], None]


def put(name: str, uuid: str, klass: Klass, base: str, tag: str, dvm: str | None) -> Change:
    """Add a qube, or make another one of that name."""

    def change(core: Core) -> None:
        system = core.system
        if system.by_uuid.get(uuid, name) != name or refers(core, name):
            return
        if klass in BASED and (base == name or base not in system.qubes):
            return
        if name in system.qubes:
            system = system.without_qube(name)
        properties: dict[str, Value] = {"label": "red"}
        if klass in BASED:
            properties["template"] = base
        if klass is Klass.APP:
            properties |= {"template_for_dispvms": True, "default_dispvm": dvm}
        core.change(system.with_qube(Qube(name, 1, uuid, klass, properties, tags=frozenset((tag,)))), [name])

    return change


def refers(core: Core, name: str) -> bool:
    """Whether a qube is based on this one, so that it cannot go."""
    return any(qube.properties.get("template") == name for qube in core.system.qubes.values())


def drop(name: str) -> Change:
    def change(core: Core) -> None:
        if name in core.system.qubes and not refers(core, name):
            core.change(core.system.without_qube(name), [name])

    return change


def edit(name: str, tag: str, internal: str) -> Change:
    def change(core: Core) -> None:
        qube = core.system.qubes.get(name)
        if qube is not None:
            edited = replace(qube.with_feature("internal", internal), tags=frozenset((tag,)))
            core.change(core.system.with_qube(edited), [name])

    return change


def run(name: str, state: str) -> Change:
    def change(core: Core) -> None:
        if name in core.system.qubes:
            core.set_running(name, Running(state=state))

    return change


def set_global(name: str, value: str | None) -> Change:
    def change(core: Core) -> None:
        core.change(core.system.with_property(name, value), everything=True)

    return change


names, tags = st.sampled_from(NAMES), st.sampled_from(("t", "u"))
CHANGES = st.one_of(
    st.builds(
        put,
        names,
        st.sampled_from(UUIDS),
        st.sampled_from((Klass.TEMPLATE, Klass.APP, Klass.DISPOSABLE, Klass.STANDALONE, Klass.REMOTE)),
        names,
        tags,
        st.none() | names,
    ),
    st.builds(drop, names),
    st.builds(edit, names, tags, st.sampled_from(("", "1"))),
    st.builds(run, names, st.sampled_from(("Halted", "Running", "Paused"))),
    st.builds(set_global, st.sampled_from(("default_dispvm", "default_guivm")), st.none() | names),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(CHANGES, max_size=4), max_size=10))
def test_the_world_is_always_what_a_new_look_gives(batches: list[list[Change]]) -> None:
    async def check(root: Path) -> None:
        async with open_core(rooted(root), create=True) as core:
            facts = Facts(core)
            for batch in batches:
                for change in batch:
                    change(core)
                assert facts.world() == World.of(facts_of(core, qube) for qube in core.system.qubes.values())
                assert facts.world() is facts.world()

    with tempfile.TemporaryDirectory() as root:
        asyncio.run(check(Path(root)))


def test_a_change_of_one_qube_looks_at_no_other(tmp_path: Path) -> None:
    """The facts of the others are the very same objects."""

    async def check() -> None:
        async with open_core(rooted(tmp_path), create=True) as core:
            facts = Facts(core)
            for name, uuid in zip(NAMES, UUIDS, strict=False):
                put(name, uuid, Klass.STANDALONE, "", "t", None)(core)
            before = facts.world()
            edit("b", "u", "1")(core)
            after = facts.world()
            assert {name for name in NAMES if after.find(name) is not before.find(name)} == {"b"}
            run("b", "Running")(core)
            run("b", "Halted")(core)
            assert facts.world() is after

    asyncio.run(check())
