"""Whatever is called in whatever order, the system stays one that could have been read from its file.

Hypothesis makes up calls over a small set of names, so that they meet; after each one all invariants are
looked at.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qubesd.events import Event, QubeAdded, QubeRemoved, TagAdded, TagRemoved
from qubesd.model.properties import GLOBALS, read, table
from qubesd.model.state import DOM0
from qubesd.store.xml import dump, load
from tests.qubesd.house import House, house_at

NAMES = st.sampled_from(["debian-13", "work", "sys-net", "web-dvm", "a", "b", "c.d", DOM0])
QUBE_VALUES = st.one_of(NAMES, st.just(""))
QUBE_PROPERTIES = st.sampled_from(
    ["netvm", "default_dispvm", "guivm", "audiovm", "management_dispvm", "template", "relayvm"]
)
FLAGS = st.sampled_from(["provides_network", "template_for_dispvms", "installed_by_rpm", "auto_cleanup"])
GLOBAL_QUBES = st.sampled_from([name for name, line in GLOBALS.items() if line.type == "vm"])
BOOLEANS = st.sampled_from(["True", "False"])
TAGS = st.sampled_from(["team", "created-by-work", "created-by-nobody"])
FEATURES = st.sampled_from(
    ["f", "servicevm", "tag-created-vm-with", "set-created-guivm", "service.meminfo-writer"]
)
VALUES = st.sampled_from(["", "1", "work", "team created-by-a", "0"])
CLASSES = st.sampled_from(["TemplateVM", "AppVM", "StandaloneVM", "DispVM", "RemoteVM"])
REFUSALS = ("Error", "Exception", "Denied")


class Calls(RuleBasedStateMachine):
    """Random calls on one core; ``known`` is what a listener that heard all events believes."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._opening = house_at(Path(self._directory.name))
        self.house: House = self._runner.run(self._opening.__aenter__())
        self._runner.run(self.house.furnish())
        system = self.house.core.system
        self.known = {name: set(qube.tags) for name, qube in system.qubes.items()}
        self.house.core.bus.subscribe(Event, self._hear)

    def teardown(self) -> None:
        self._runner.run(self._opening.__aexit__(None, None, None))
        self._runner.close()
        self._directory.cleanup()

    def _hear(self, event: Event) -> None:
        match event:
            case QubeAdded(qube=name):
                self.known[name] = set(self.house.qube(name).tags)
            case QubeRemoved(qube=name):
                del self.known[name]
            case TagAdded(subject=str(name), tag=tag):
                self.known[name].add(tag)
            case TagRemoved(subject=str(name), tag=tag):
                self.known[name].discard(tag)

    def call(self, service: str, *words: str, **by_name: str) -> None:
        before = self.house.core.system
        answer = self._runner.run(self.house.call(service, *words, **by_name))
        if answer.endswith(REFUSALS):
            assert self.house.core.system is before, f"{service} {words} was refused and changed something"

    @rule(klass=CLASSES, name=NAMES, template=QUBE_VALUES, caller=NAMES)
    def create(self, klass: str, name: str, template: str, caller: str) -> None:
        if caller in self.known:
            argument = template if klass in ("AppVM", "DispVM") else ""
            payload = f"name={name} label=red"
            self.call(f"admin.vm.Create.{klass}", DOM0, argument, payload, caller=caller)

    @rule(name=NAMES)
    def create_disposable(self, name: str) -> None:
        self.call("admin.vm.CreateDisposable", name)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.call("admin.vm.Remove", name)

    @rule(name=NAMES, prop=QUBE_PROPERTIES, value=QUBE_VALUES)
    def refer(self, name: str, prop: str, value: str) -> None:
        self.call("admin.vm.property.Set", name, prop, value)

    @rule(name=NAMES, prop=FLAGS, value=BOOLEANS)
    def flag(self, name: str, prop: str, value: str) -> None:
        self.call("admin.vm.property.Set", name, prop, value)

    @rule(name=NAMES, prop=st.one_of(QUBE_PROPERTIES, FLAGS, st.sampled_from(["label", "maxmem", "ip"])))
    def reset(self, name: str, prop: str) -> None:
        self.call("admin.vm.property.Reset", name, prop)

    @rule(name=GLOBAL_QUBES, value=QUBE_VALUES)
    def set_global(self, name: str, value: str) -> None:
        self.call("admin.property.Set", DOM0, name, value)

    @rule(name=GLOBAL_QUBES)
    def reset_global(self, name: str) -> None:
        self.call("admin.property.Reset", DOM0, name)

    @rule(name=NAMES, tag=TAGS)
    def add_tag(self, name: str, tag: str) -> None:
        self.call("admin.vm.tag.Set", name, tag)

    @rule(name=NAMES, tag=TAGS)
    def remove_tag(self, name: str, tag: str) -> None:
        self.call("admin.vm.tag.Remove", name, tag)

    @rule(name=NAMES, feature=FEATURES, value=VALUES)
    def set_feature(self, name: str, feature: str, value: str) -> None:
        self.call("admin.vm.feature.Set", name, feature, value)

    @rule(name=NAMES, feature=FEATURES)
    def remove_feature(self, name: str, feature: str) -> None:
        self.call("admin.vm.feature.Remove", name, feature)

    @rule(name=NAMES, verb=st.sampled_from(["Start", "Kill", "Pause", "Unpause"]))
    def power(self, name: str, verb: str) -> None:
        """Power changes no stored state, but that a disposable may go with its run."""
        self._runner.run(self.house.call(f"admin.vm.{verb}", name))

    @invariant()
    def what_is_written_is_what_there_is(self) -> None:
        system = self.house.core.system
        assert load(dump(system)) == system

    @invariant()
    def every_reference_leads_somewhere(self) -> None:
        system = self.house.core.system
        for owner in (None, *system.qubes.values()):
            lines = GLOBALS if owner is None else table(owner.klass)
            for name, line in lines.items():
                value = read(self.house.core, owner, name).value
                if line.type == "vm":
                    assert value is None or value in system.qubes, (owner, name, value)
                if line.type == "label":
                    assert value in system.labels
        for qube in system.qubes.values():
            assert all(volume.pool in system.pools for volume in qube.volumes.values())

    @invariant()
    def identities_are_unique(self) -> None:
        system = self.house.core.system
        assert system.by_uuid == {qube.uuid: name for name, qube in system.qubes.items()}
        assert len({qube.qid for qube in system.qubes.values()}) == len(system.qubes)

    @invariant()
    def network_has_no_loops(self) -> None:
        core = self.house.core
        for qube in core.system.qubes.values():
            seen = {qube.name}
            while "netvm" in table(qube.klass) and (netvm := read(core, qube, "netvm").value) is not None:
                assert netvm not in seen
                seen.add(str(netvm))
                qube = core.system.qubes[str(netvm)]

    @invariant()
    def tags_repeat_their_property_and_no_other(self) -> None:
        core = self.house.core
        for qube in core.system.qubes.values():
            for name in ("guivm", "audiovm", "relayvm"):
                tags = {tag for tag in qube.tags if tag.startswith(f"{name}-")}
                if name in table(qube.klass):
                    assert tags <= {f"{name}-{read(core, qube, name).value}"}

    @invariant()
    def listener_that_missed_nothing_knows_all(self) -> None:
        assert self.known == {name: set(qube.tags) for name, qube in self.house.core.system.qubes.items()}

    @invariant()
    def list_is_as_if_made_anew(self) -> None:
        core = self.house.core
        rows = self._runner.run(self.house.call("admin.vm.List"))
        assert rows == "".join(
            f"{qube.name} class={qube.klass} state={core.running(qube.name).state} uuid={qube.uuid}\n"
            for qube in core.system.in_order()
        )


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=20, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
