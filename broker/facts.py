"""What the policy may know of the qubes, kept in step with the core.

Changes only note which qubes are out of date; the next decision derives a world from the one before. Nothing
is rebuilt for a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy_engine import QubeFacts, World
from qubesd.events import QubeChanged, SystemChanged
from qubesd.model.properties import read, table
from qubesd.model.state import Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core

_MANY = 100
"""From so many changed qubes on, a new world costs less than as many derived ones."""


class Facts:
    """The world of the policy, made of the core's system and run state."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._world = World.of(())
        self._stale: set[str] = set()
        self._all_stale = True
        self._based_on: dict[str, set[str]] = {}
        core.bus.subscribe(QubeChanged, self._qube_changed)
        core.bus.subscribe(SystemChanged, self._system_changed)

    def world(self) -> World:
        """The qubes as they are now; always the same object while nothing that policy may know changes."""
        if self._all_stale or len(self._stale) > _MANY:
            self._rebuild()
        elif self._stale:
            self._derive()
        return self._world

    def _qube_changed(self, event: QubeChanged) -> None:
        assert event.subject is not None
        self._stale.add(event.subject)
        self._stale |= self._based_on.get(event.subject, set())

    def _system_changed(self, event: SystemChanged) -> None:
        self._all_stale = True

    def _rebuild(self) -> None:
        self._based_on.clear()
        self._world = World.of(self._observe(qube) for qube in self._core.system.qubes.values())
        self._all_stale = False
        self._stale.clear()

    def _derive(self) -> None:
        world = self._world
        qubes = self._core.system.qubes
        for name in self._stale:
            known, qube = world.find(name), qubes.get(name)
            if known is not None and (qube is None or qube.uuid != known.uuid):
                world = world.without(name)
                self._based_on.get(known.template or "", set()).discard(name)
        for name in self._stale & qubes.keys():
            world = world.with_qube(self._observe(qubes[name]))
        self._world = world
        self._stale.clear()

    def _observe(self, qube: Qube) -> QubeFacts:
        facts = facts_of(self._core, qube)
        if facts.template is not None:
            self._based_on.setdefault(facts.template, set()).add(qube.name)
        return facts


def facts_of(core: Core, qube: Qube) -> QubeFacts:
    """What the policy may know of one qube (``spec/policy-language.md`` 4), inherited values included."""
    properties = table(qube.klass)

    def named(name: str) -> str | None:
        value = read(core, qube, name).value if name in properties else None
        return value if isinstance(value, str) and value else None

    label = core.system.labels.get(named("label") or "")
    return QubeFacts(
        name=qube.name,
        uuid=qube.uuid,
        klass=qube.klass.value,
        tags=qube.tags,
        template_for_dispvms="template_for_dispvms" in properties
        and bool(read(core, qube, "template_for_dispvms").value),
        default_dispvm=named("default_dispvm"),
        power_state=core.running(qube.name).state,
        internal=qube.features.get("internal"),
        guivm=named("guivm"),
        relayvm=named("relayvm"),
        transport_rpc=named("transport_rpc"),
        icon="" if label is None else f"appvm-{label.name}",
        label="" if label is None else label.color,
        template=named("template"),
        label_name="" if label is None else label.name,
    )
