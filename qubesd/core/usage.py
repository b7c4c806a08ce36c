"""What the qubes of each owner use, kept as it changes.

No call adds up all qubes: each is counted once, and again when it changed. What is under way counts as if it
was done already, by a promise that whoever does it holds; once it is done the promise adds nothing to what is
there, so that nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from qubesd.bus import Bus
from qubesd.events import QubeChanged, SystemRestored
from qubesd.model.memory import MIB, most, set_to
from qubesd.model.owner import owner_of
from qubesd.model.state import Klass, Qube
from qubesd.model.view import View


@dataclass(frozen=True, slots=True)
class Use:
    """Qubes that exist; qubes that run or are being started; the most memory that those may come to have; the
    sizes of the volumes that keep what is written to them. The latter two are in bytes."""

    qubes: int = 0
    running: int = 0
    memory: int = 0
    storage: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(
            self.qubes + other.qubes,
            self.running + other.running,
            self.memory + other.memory,
            self.storage + other.storage,
        )

    def __sub__(self, other: Use) -> Use:
        return Use(
            self.qubes - other.qubes,
            self.running - other.running,
            self.memory - other.memory,
            self.storage - other.storage,
        )


@dataclass(frozen=True, slots=True)
class Made:
    """The qube is being made, and will be like this."""

    qube: Qube

    @property
    def uuid(self) -> str:
        return self.qube.uuid


@dataclass(frozen=True, slots=True)
class Started:
    """The qube is being started, and may come to have so many bytes of memory."""

    uuid: str
    memory: int


@dataclass(frozen=True, slots=True)
class Grown:
    """The volume of that name is getting this size, in bytes."""

    uuid: str
    volume: str
    size: int


@dataclass(frozen=True, slots=True)
class Spawned:
    """The qube's domain is being made, with so many bytes of memory."""

    uuid: str
    memory: int


Promise = Made | Started | Spawned | Grown

_NOTHING = Use()


class Usage:
    """The figures of one view's qubes, by the uuid of their owner.

    A running qube counts the memory that its domain was made with, or that it itself has been set to since: a
    template that changes meanwhile changes no domain.
    """

    def __init__(self, bus: Bus, view: View) -> None:
        self._view = view
        self._totals: dict[str, Use] = {}
        self._counted: dict[str, tuple[str | None, Use]] = {}
        """By the qube's uuid: its owner, and what it uses."""
        self._uuids: dict[str, str] = {}
        self._made_with: dict[str, int] = {}
        """By the uuid of a qube that runs: the memory of its domain."""
        self._promises: dict[str, list[Promise]] = {}
        self._stale: set[str] = set()
        self._all_stale = True
        bus.subscribe(QubeChanged, lambda event: self._stale.add(event.subject))
        bus.subscribe(SystemRestored, lambda event: self._spoil())

    def of(self, owner: str) -> Use:
        """What the qubes of this owner use, and what is promised to them."""
        self._refresh()
        return self._totals.get(owner, _NOTHING)

    def growth(self, draft: View, touched: Iterable[str]) -> Mapping[str, Use]:
        """What the draft's change of the qubes of these names adds to each owner's figures, or takes away.

        More memory for a running qube counts here also where it is a default that the qube goes back to.
        """
        self._refresh()
        growth: dict[str, Use] = {}
        for name in touched:
            before, after = self._view.system.qubes.get(name), draft.system.qubes.get(name)
            for uuid in {qube.uuid for qube in (before, after) if qube is not None}:
                owner, use = self._counted.get(uuid, (None, _NOTHING))
                _add(growth, owner, _NOTHING - use)
            if after is not None:
                use = self._use(after)
                if use.running and before is not None and self._asks_for_more(before, draft, after):
                    use = replace(use, memory=max(use.memory, most(draft, after)))
                _add(growth, owner_of(after), use)
        return growth

    def _asks_for_more(self, before: Qube, draft: View, after: Qube) -> bool:
        return set_to(before) != set_to(after) and most(draft, after) > most(self._view, before)

    def keep(self, promises: Iterable[Promise]) -> Mapping[str, Use]:
        """Count what is promised, until it is dropped; what that adds to each owner's figures."""
        self._refresh()
        growth: dict[str, Use] = {}
        for promise in promises:
            self._promises.setdefault(promise.uuid, []).append(promise)
            self._count(promise.uuid, growth)
        return growth

    def drop(self, promises: Iterable[Promise]) -> None:
        """Count what there is instead."""
        self._refresh()
        for promise in promises:
            left = self._promises[promise.uuid]
            left.remove(promise)
            if not left:
                del self._promises[promise.uuid]
            self._count(promise.uuid, {})

    def _spoil(self) -> None:
        self._all_stale = True

    def _refresh(self) -> None:
        if self._all_stale:
            self._stale = {*self._uuids, *self._view.system.qubes}
            self._all_stale = False
        while self._stale:
            name = self._stale.pop()
            qube = self._view.system.qubes.get(name)
            known = self._uuids.pop(name, None)
            if qube is not None:
                self._uuids[name] = qube.uuid
                self._count(qube.uuid, {})
            if known is not None and (qube is None or qube.uuid != known):
                self._count(known, {})

    def _count(self, uuid: str, growth: dict[str, Use]) -> None:
        """Count this qube anew, as it is or is promised to be; the difference goes to ``growth``, too."""
        qube = self._view.system.find(f"uuid:{uuid}") or self._promised(uuid)
        owner, use = self._counted.pop(uuid, (None, _NOTHING))
        changes = [(owner, _NOTHING - use)]
        if qube is None:
            self._made_with.pop(uuid, None)
        else:
            self._note_memory(qube)
            self._counted[uuid] = owner_of(qube), self._use(qube)
            changes.append(self._counted[uuid])
        for owner, use in changes:
            _add(growth, owner, use)
            _add(self._totals, owner, use)

    def _promised(self, uuid: str) -> Qube | None:
        made = (one.qube for one in self._promises.get(uuid, ()) if isinstance(one, Made))
        return next(made, None)

    def _note_memory(self, qube: Qube) -> None:
        """Remember what a domain was made with, as long as there is one."""
        if not _has_domain(self._view, qube):
            self._made_with.pop(qube.uuid, None)
        elif qube.uuid not in self._made_with:
            promises = self._promises.get(qube.uuid, ())
            spawned = (one.memory for one in promises if isinstance(one, Spawned))
            self._made_with[qube.uuid] = next(spawned, most(self._view, qube))

    def _use(self, qube: Qube) -> Use:
        promises = self._promises.get(qube.uuid, ())
        memory = [one.memory for one in promises if isinstance(one, Started | Spawned)]
        if qube.uuid in self._made_with:
            memory.append(self._made_with[qube.uuid])
        sizes = {volume.name: volume.size for volume in qube.volumes.values() if volume.save_on_stop}
        for one in promises:
            if isinstance(one, Grown) and one.volume in sizes:
                sizes[one.volume] = max(sizes[one.volume], one.size)
        return Use(
            qubes=1,
            running=1 if memory else 0,
            memory=max([*memory, *(size * MIB for size in set_to(qube))]) if memory else 0,
            storage=sum(sizes.values()),
        )


def _has_domain(view: View, qube: Qube) -> bool:
    elsewhere = qube.klass in (Klass.ADMIN, Klass.REMOTE)
    return not elsewhere and view.running(qube.name).state != "Halted"


def _add(figures: dict[str, Use], owner: str | None, use: Use) -> None:
    """Nobody's are not added up, and an owner of nothing is not kept."""
    if owner is None or use == _NOTHING:
        return
    figures[owner] = figures.get(owner, _NOTHING) + use
    if figures[owner] == _NOTHING:
        del figures[owner]
