"""A new qube and its tags come into the system in one change; a disposable gets no tag that it may not."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from qubesd.api.method import Command, Text
from qubesd.api.qubes import create_disposable_of
from qubesd.core.creation import Wanted
from qubesd.events import Event
from qubesd.model.owner import OWNER
from qubesd.model.state import Klass
from tests.qubesd.core.test_budgets import scene
from tests.qubesd.core.test_preloading import ask, queue
from tests.qubesd.house import House, visit

TEAMS = frozenset(("team", "operator"))
ALWAYS = frozenset(("guivm-dom0", "audiovm-dom0", "created-by-work"))


def looking(house: House) -> dict[str, set[tuple[frozenset[str], str | None]]]:
    """By the name of each qube that comes from now on, the tags and owner that anyone ever sees it with, on
    any event and whenever the system is read."""
    there = set(house.core.system.qubes)
    seen: dict[str, set[tuple[frozenset[str], str | None]]] = {}

    def look(event: Event) -> None:
        for name, qube in house.core.system.qubes.items():
            if name not in there:
                seen.setdefault(name, set()).add((qube.tags, qube.features.get(OWNER)))

    house.core.bus.subscribe(Event, look)
    return seen


@pytest.mark.parametrize(
    ("service", "words"),
    [
        pytest.param("admin.vm.Create.AppVM", ("dom0", "debian-13", "name=new label=red"), id="app"),
        pytest.param("admin.vm.Create.StandaloneVM", ("dom0", "", "name=new label=red"), id="standalone"),
        pytest.param("admin.vm.Create.DispVM", ("dom0", "web-dvm", "name=new label=red"), id="named"),
        pytest.param("admin.vm.CreateDisposable", ("web-dvm",), id="disposable"),
    ],
)
def test_it_appears_with_all_that_it_has(service: str, words: tuple[str, ...], tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.feature.Set", "work", "tag-created-vm-with", "one two")
        await house.do("admin.vm.tag.Set", "web-dvm", "team")
        seen = looking(house)
        await house.do(service, *words, caller="work")
        ((name, looks),) = seen.items()
        made = house.qube(name)
        assert looks == {(made.tags, house.qube("work").uuid)}
        assert {"created-by-work", "one", "two"} <= made.tags
        assert ("team" in made.tags) is (made.klass is Klass.DISPOSABLE)

    visit(tmp_path, guest)


@scene
async def test_one_made_ahead_gets_its_takers_tags_at_once(house: House) -> None:
    await ask(house, 1, "1000")
    (waited,) = queue(house)
    before = house.qube(waited).tags
    seen: list[frozenset[str]] = []
    house.core.bus.subscribe(Event, lambda _: seen.append(house.qube(waited).tags))
    assert await house.call("admin.vm.CreateDisposable", "web-dvm", caller="work") == waited
    assert set(seen) == {before, before | {"created-by-work", "disp-created-by-work"}}


def no_team(tag: str) -> bool:
    return tag != "team"


@scene
async def test_a_tag_that_is_not_inherited(house: House) -> None:
    for tag in TEAMS:
        await house.do("admin.vm.tag.Set", "web-dvm", tag)
    work, template = house.qube("work"), house.qube("web-dvm")
    asked: set[str] = set()

    def inherits(tag: str) -> bool:
        asked.add(tag)
        return no_team(tag)

    passing = await house.core.creation.create_disposable(work, template, inherits)
    wanted = Wanted(Klass.DISPOSABLE, "named", "red", "web-dvm")
    named = await house.core.creation.create(work, wanted, inherits)
    assert asked == TEAMS | {"created-by-dom0"}
    assert passing.tags == {*ALWAYS, "operator", "created-by-dom0", "disp-created-by-work"}
    assert named.tags == {*ALWAYS, "operator", "created-by-dom0"}


@scene
async def test_one_made_ahead_loses_what_is_not_inherited(house: House) -> None:
    for tag in TEAMS:
        await house.do("admin.vm.tag.Set", "web-dvm", tag)
    await ask(house, 1, "1000")
    (waited,) = queue(house)
    assert house.qube(waited).tags >= TEAMS
    seen = await taken(house, waited)
    made = house.qube(waited)
    assert made.tags == {*ALWAYS, "operator", "created-by-dom0", "disp-created-by-work"}
    assert not any("created-by-work" in tags and "team" in tags for tags in seen)


async def taken(house: House, waited: str) -> list[frozenset[str]]:
    """Have it handed out to Work without the tag; the tags that anybody saw it with meanwhile."""
    seen: list[frozenset[str]] = []
    house.core.bus.subscribe(Event, lambda _: seen.append(house.qube(waited).tags))
    command = Command("admin.vm.CreateDisposable", "", house.qube("work"), house.qube("web-dvm"), False)
    answering = create_disposable_of(house.core, replace(command, inherits=no_team))
    assert isinstance(answering, Awaitable)
    assert await answering == Text(waited)
    return seen
