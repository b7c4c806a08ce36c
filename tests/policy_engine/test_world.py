"""The snapshot of the qubes: look-ups, derivation, and what it refuses."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine import QubeFacts, World, WorldError
from tests.policy_engine import strategies
from tests.policy_engine.strategies import DOM0_UUID

DOM0 = QubeFacts("dom0", DOM0_UUID, "AdminVM")
WORK = QubeFacts("work", "w", "AppVM", frozenset({"t"}), power_state="Running")
A = QubeFacts("a", None, "AppVM")


def test_names_and_uuids_are_found_and_dom0_comes_first() -> None:
    world = World.of([WORK, DOM0, A])
    assert world.names == ("dom0", "a", "work")
    assert [facts.name for facts in world] == ["dom0", "a", "work"]
    assert world.find("work") is world.find("uuid:w") is WORK
    assert "uuid:None" not in world
    assert world.find("@adminvm") is None
    assert len(world) == 3


@given(strategies.qubes(), st.data())
def test_a_derived_world_is_the_world_built_anew(qubes: list[QubeFacts], data: st.DataObject) -> None:
    world = World.of(qubes)
    now = {facts.name: facts for facts in qubes}
    for _ in range(data.draw(st.integers(1, 6))):
        name = data.draw(st.sampled_from(["dom0", *strategies.NAMES]))
        if data.draw(st.booleans()):
            facts = data.draw(strategies.facts(name))
            world, now[name] = world.with_qube(facts), facts
        else:
            world = world.without(name)
            now.pop(name, None)
        anew = World.of(now.values())
        assert world == anew
        assert world.matching(now) == anew.matching(now)


@given(strategies.qubes(), st.data())
def test_a_world_keeps_its_content_whatever_is_derived_from_it(
    qubes: list[QubeFacts], data: st.DataObject
) -> None:
    versions = [(World.of(qubes), {facts.name: facts for facts in qubes})]
    for _ in range(data.draw(st.integers(1, 6))):
        world, now = data.draw(st.sampled_from(versions))
        name = data.draw(st.sampled_from(["dom0", *strategies.NAMES]))
        if data.draw(st.booleans()):
            facts = data.draw(strategies.facts(name))
            versions.append((world.with_qube(facts), now | {name: facts}))
        else:
            versions.append((world.without(name), {key: now[key] for key in now if key != name}))
    for world, now in versions:
        assert world == World.of(now.values())
        for facts in now.values():
            assert world.find(facts.name) == facts
        assert [name for name in strategies.NAMES if name in world] == [
            name for name in strategies.NAMES if name in now
        ]


def test_deriving_leaves_the_original_alone() -> None:
    world = World.of([DOM0, WORK])
    tagged = world.with_qube(replace(WORK, tags=frozenset({"u"}), uuid="w2"))
    assert world == World.of([DOM0, WORK])
    assert tagged.find("uuid:w") is None
    assert tagged.find("uuid:w2") == tagged.find("work")
    assert world.with_qube(WORK) is world
    assert world.without("gone") is world
    assert world.without("uuid:w") is world


@given(st.integers(0, 300), st.randoms(use_true_random=False))
def test_bits_stand_for_names_in_order(size: int, chance: random.Random) -> None:
    names = [f"q{number:03}" for number in range(size)]
    world = World.of([QubeFacts(name, None, "AppVM") for name in names])
    chosen = [name for name in names if chance.random() < 0.5]
    assert world.selected(world.matching(chosen)) == chosen
    assert world.selected(world.matching(["*"])) == names


@pytest.mark.parametrize(
    ("qubes", "message"),
    [
        pytest.param([WORK, replace(A, name="work")], "there twice", id="name-twice"),
        pytest.param([WORK, replace(A, uuid="w")], "also that of 'work'", id="uuid-twice"),
        pytest.param([replace(A, uuid=DOM0_UUID)], "that of dom0", id="uuid-of-dom0"),
        pytest.param([replace(A, name="")], "expected the name", id="empty"),
        pytest.param([replace(A, name="@tag:t")], "expected the name", id="looks-like-a-tag"),
        pytest.param([replace(A, name="*")], "expected the name", id="looks-like-the-wildcard"),
        pytest.param([replace(A, name="uuid:w")], "expected the name", id="looks-like-a-uuid"),
    ],
)
def test_facts_that_contradict_themselves_are_refused(qubes: list[QubeFacts], message: str) -> None:
    with pytest.raises(WorldError, match=message):
        World.of(qubes)
    world = World.of(qubes[:-1])
    if qubes[-1].name not in world:
        with pytest.raises(WorldError, match=message):
            world.with_qube(qubes[-1])


def test_a_system_description_is_read() -> None:
    world = World.from_system_info(
        {
            "domains": {
                "dom0": {"type": "AdminVM", "uuid": DOM0_UUID, "power_state": "Running", "tags": []},
                "b": {
                    "type": "RemoteVM",
                    "tags": ["x"],
                    "uuid": "u",
                    "internal": False,
                    "default_dispvm": None,
                    "template_for_dispvms": True,
                    "relayvm": "a",
                    "transport_rpc": "t",
                    "icon": "i",
                    "label": "0x1",
                    "guivm": "dom0",
                },
            }
        }
    )
    assert world.find("uuid:u") == QubeFacts(
        "b",
        "u",
        "RemoteVM",
        frozenset({"x"}),
        template_for_dispvms=True,
        power_state="",
        relayvm="a",
        transport_rpc="t",
        icon="i",
        label="0x1",
        guivm="dom0",
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param({}, "domains: expected", id="no-domains"),
        pytest.param({"domains": []}, "domains: expected", id="list"),
        pytest.param({"domains": {"a": None}}, "'a': expected an object", id="qube"),
        pytest.param({"domains": {"a": {}}}, "'a': type: expected", id="no-type"),
        pytest.param({"domains": {"a": {"type": 1}}}, "type: expected", id="type"),
        pytest.param({"domains": {"a": {"type": "x", "tags": "t"}}}, "tags: expected", id="tags"),
        pytest.param({"domains": {"a": {"type": "x", "tags": [1]}}}, "tags: expected", id="tag"),
        pytest.param({"domains": {"a": {"type": "x", "uuid": 7}}}, "uuid: expected", id="uuid"),
        pytest.param({"domains": {"a\n": {"type": "x", "uuid": 7}}}, r"'a\\n': uuid", id="quoted"),
    ],
)
def test_what_is_no_system_description_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(WorldError, match=message):
        World.from_system_info(document)
