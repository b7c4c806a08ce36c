"""Whose entries build on what is so of a qube: the running qubes that are looked at again when it changed.

That is asked with every change, so it is kept the other way round, and costs as much as there are of those.
"""

from __future__ import annotations

from qubesd.core.index import references
from qubesd.core.keeper import Keeper
from qubesd.model.lineage import netvms, templates
from qubesd.model.properties import read
from qubesd.model.state import DOM0, Qube

_SERVING = ("guivm", "audiovm")


class Concerned:
    """The running qubes of one keeper that were noted, and what each builds on."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._grounds: dict[str, frozenset[str]] = {}
        self._built_on: dict[str, set[str]] = {}
        self._named: dict[str, frozenset[str]] = {}
        """Whom each qube of the system names, as when it was looked at last."""

    def learn(self) -> None:
        """Look at every qube of the system, whose changes are told one by one from then on."""
        qubes = self._keeper.system.qubes.values()
        self._named = {qube.name: references(qube) for qube in qubes}

    def note(self, qube: Qube) -> None:
        """The running qube was looked at."""
        grounds = self._grounds_of(qube)
        before = self._grounds.get(qube.name, frozenset())
        self._grounds[qube.name] = grounds
        for name in before - grounds:
            self._leave(name, qube.name)
        for name in grounds - before:
            self._built_on.setdefault(name, set()).add(qube.name)

    def drop(self, name: str) -> None:
        """The qube runs no more."""
        for ground in self._grounds.pop(name, ()):
            self._leave(ground, name)

    def on(self, name: str) -> frozenset[str]:
        """The noted qubes that have it as a template, a netvm however far away, guivm or audiovm."""
        return frozenset(self._built_on.get(name, ()))

    def by_change_of(self, name: str) -> set[str]:
        """The qubes, noted or not, that a change of this one may be about: also those that it names or named
        before, for an extension may say something of it to these."""
        qube = self._keeper.system.qubes.get(name)
        before = self._named.pop(name, frozenset())
        now = frozenset() if qube is None else references(qube)
        if qube is not None:
            self._named[name] = now
        return {name, *before, *now, *self.on(name)}

    def _grounds_of(self, qube: Qube) -> frozenset[str]:
        system = self._keeper.system
        serving = (read(self._keeper, qube, role).value for role in _SERVING)
        names = {str(server) for server in serving if server is not None}
        names.update(step.name for chain in (templates, netvms) for step in chain(system, qube))
        # Nothing of dom0 but its keyboard counts, of whose change each qube is told by itself.
        return frozenset(names - {DOM0, qube.name})

    def _leave(self, ground: str, name: str) -> None:
        self._built_on[ground].discard(name)
        if not self._built_on[ground]:
            del self._built_on[ground]
