"""Whatever is called, also at once and where writing fails: the figures are those of a recount, and nothing
that a limit forbids comes about."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qubesd.core.budgets import UNLIMITED, Allowance
from qubesd.core.power_events import DomainPreSpawn
from qubesd.core.usage import Use
from qubesd.events import VolumeImportBegin, VolumeImportEnd, WireEvent
from qubesd.model.memory import most
from qubesd.model.owner import OWNER, owner_of
from qubesd.model.state import DOM0, Qube
from tests.qubesd.core.test_durability import unwritable
from tests.qubesd.house import House, house_at

GONE = "11111111-2222-3333-4444-555555555555"
MAKERS = ("work", "sys-net")
MADE = ("a", "b", "c", "d")

Words = tuple[tuple[str, ...], str]
"""The words of a call, and its caller."""

names = st.sampled_from(MADE)
makers = st.sampled_from((*MAKERS, *MADE))
sizes = st.sampled_from(["0", "4096", str(2 << 30), str(3 << 30), str(12 << 30)])
memories = st.sampled_from(["300", "400", "900"])


def by_dom0(*words: str | st.SearchStrategy[str]) -> st.SearchStrategy[Words]:
    parts = (word if isinstance(word, st.SearchStrategy) else st.just(word) for word in words)
    return st.tuples(st.tuples(*parts), st.just(DOM0))


def created(klass: str, template: str) -> st.SearchStrategy[Words]:
    words = st.tuples(
        st.just(f"admin.vm.Create.{klass}"),
        st.just(DOM0),
        st.just(template),
        names.map(lambda name: f"name={name} label=red"),
    )
    return st.tuples(words, makers)


disposables = st.tuples(st.just(("admin.vm.CreateDisposable", "web-dvm")), makers)
calls = st.one_of(
    created("AppVM", "debian-13"),
    created("StandaloneVM", ""),
    disposables,
    by_dom0(st.sampled_from([f"admin.vm.{verb}" for verb in ("Start", "Start", "Kill", "Remove")]), names),
    by_dom0("admin.vm.volume.Resize", names, "private", sizes),
    by_dom0("internal.vm.volume.ImportBegin", names, "private", sizes),
    by_dom0("internal.vm.volume.ImportEnd", names, "private", st.sampled_from(["ok", "fail\nno"])),
    by_dom0("admin.vm.property.Set", names, "memory", memories),
    by_dom0("admin.vm.property.Set", names, "maxmem", st.sampled_from(["0", "300", "900"])),
    by_dom0("admin.vm.property.Reset", names, st.sampled_from(["memory", "maxmem"])),
    by_dom0("admin.vm.property.Set", names, "provides_network", "True"),
    by_dom0("admin.vm.property.Set", names, "netvm", st.sampled_from(["", "a", "b"])),
    by_dom0("admin.vm.feature.Remove", names, OWNER),
)
limits = st.builds(
    Allowance,
    qubes=st.none() | st.integers(0, 4),
    running=st.none() | st.integers(0, 3),
    memory=st.none() | st.sampled_from([0, 500 << 20, 1500 << 20]),
    storage=st.none() | st.sampled_from([0, 5 << 30, 20 << 30]),
)


class Owners(RuleBasedStateMachine):
    """Calls by two makers and what they made; everything made is Work's, Sys-net's or that of one who is
    gone."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._opening = house_at(Path(self._directory.name))
        self.house: House = self._runner.run(self._opening.__aenter__())
        self._runner.run(self.house.furnish())
        self.owners = [self.house.qube(name).uuid for name in MAKERS] + [GONE]
        self.allowances: dict[str, Allowance] = {}
        self.house.core.budgets.allowance_of = self.allowance_of
        self.made_with: dict[str, int] = {}
        self.importing: dict[str, int] = {}
        self.house.core.bus.subscribe(WireEvent, self._hear)

    def teardown(self) -> None:
        self._runner.run(self._opening.__aexit__(None, None, None))
        self._runner.close()
        self._directory.cleanup()

    def _hear(self, event: WireEvent) -> None:
        """Note what a recount cannot see in the system: the memory of a domain, and what is being written."""
        if not isinstance(event, DomainPreSpawn | VolumeImportBegin | VolumeImportEnd):
            return
        qube = self.house.qube(event.subject)
        match event:
            case DomainPreSpawn():
                self.made_with[qube.uuid] = most(self.house.core, qube)
            case VolumeImportBegin(size=size):
                self.importing[qube.uuid] = int(size)
            case VolumeImportEnd():
                del self.importing[qube.uuid]

    def allowance_of(self, owner: Qube | None) -> Allowance:
        return self.allowances.get(GONE if owner is None else owner.uuid, UNLIMITED)

    def call(self, made: Iterable[Words]) -> None:
        """Make these calls at once; then no figure is above its limit that was not, or was lower."""
        there = [(words, caller) for words, caller in made if caller in self.house.core.system.qubes]
        before = {owner: asdict(self.house.core.budgets.used(owner)) for owner in self.owners}
        self._runner.run(self._gather(there))
        for owner in self.owners:
            limit = asdict(self.allowances.get(owner, UNLIMITED))
            for what, now in asdict(self.house.core.budgets.used(owner)).items():
                if limit[what] is not None:
                    assert now <= max(limit[what], before[owner][what]), (owner, what)

    async def _gather(self, there: list[Words]) -> None:
        await asyncio.gather(*(self.house.call(*words, caller=caller) for words, caller in there))

    @rule(made=st.lists(calls, min_size=1, max_size=6))
    def at_once(self, made: list[Words]) -> None:
        self.call(made)

    @rule(made=calls)
    def where_writing_fails(self, made: Words) -> None:
        with unwritable(self.house.core.config.store):
            self.call([made])

    @rule(name=names, owner=st.integers(0, 2))
    def hand_over(self, name: str, owner: int) -> None:
        self.call([(("admin.vm.feature.Set", name, OWNER, self.owners[owner]), DOM0)])

    @rule(owner=st.integers(0, 2), allowance=limits)
    def limit(self, owner: int, allowance: Allowance) -> None:
        self.allowances[self.owners[owner]] = allowance

    @invariant()
    def figures_are_those_of_a_recount(self) -> None:
        core = self.house.core
        for owner in self.owners:
            owned = [qube for qube in core.system.qubes.values() if owner_of(qube) == owner]
            running = [qube for qube in owned if core.running(qube.name).state != "Halted"]
            assert core.budgets.used(owner) == Use(
                qubes=len(owned),
                running=len(running),
                memory=sum(max(self.made_with[qube.uuid], *_own_memory(qube)) for qube in running),
                storage=sum(
                    max(volume.size, self.importing.get(qube.uuid, 0) if volume.name == "private" else 0)
                    for qube in owned
                    for volume in qube.volumes.values()
                    if volume.save_on_stop
                ),
            )


def _own_memory(qube: Qube) -> list[int]:
    return [int(qube.properties.get(name) or 0) << 20 for name in ("memory", "maxmem")]


TestOwners = Owners.TestCase
TestOwners.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
