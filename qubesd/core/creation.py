"""Making qubes (``spec/admin-calls.md`` 2.2, 2.3; order of the events in ``spec/events.md`` 4)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from uuid import uuid4

from qubesd.core import waiting
from qubesd.core.disposables import Numbers
from qubesd.core.draft import Draft
from qubesd.core.firewall import Firewalls
from qubesd.core.keeper import Keeper
from qubesd.core.storage import Storage
from qubesd.core.tags import TRACKED, Inherits, belong_to, every_tag, is_tracking
from qubesd.core.usage import Made, Use
from qubesd.errors import BadPropertyValue, BadValue, NoSuchLabel, NoSuchQube, QubeExists, QubesError
from qubesd.events import QubeAdded, QubeCreatedOnDisk
from qubesd.model import volumes
from qubesd.model.names import MAX_QID, is_tag
from qubesd.model.owner import OWNER, owner_of_new
from qubesd.model.properties import read, table
from qubesd.model.property import Settable
from qubesd.model.references import makes_disposables
from qubesd.model.state import Klass, Qube, System, Value
from qubesd.model.view import View

_DEFAULT_TEMPLATE = {Klass.APP: "default_template", Klass.DISPOSABLE: "default_dispvm"}
"""The classes that need a template, and the global property that names it where the caller does not."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A qube to be made. ``template`` is ``None`` for a class without, or where none is given or set.

    ``pools`` places volumes by their name, ``pool`` all those that are not snapshots of a template's.
    """

    klass: Klass
    name: str
    label: str
    template: str | None = None
    pool: str | None = None
    pools: Mapping[str, str] = field(default_factory=dict)


def no_name(name: str) -> bool:
    """Of a system in which nothing outlives a qube's name."""
    return False


def default_template(view: View, klass: Klass) -> str | None:
    """The template of a qube for which none is given, there or not; ``None`` where it has none."""
    if klass not in _DEFAULT_TEMPLATE:
        return None
    value = read(view, None, _DEFAULT_TEMPLATE[klass]).value
    return None if value is None else str(value)


class Creation:
    """Makes the qubes of one keeper."""

    def __init__(self, keeper: Keeper, storage: Storage, firewalls: Firewalls) -> None:
        self._keeper = keeper
        self._storage = storage
        self._firewalls = firewalls
        self._numbers = Numbers(time.monotonic)
        self.is_kept: Callable[[str], bool] = no_name
        """Of the name of a new disposable: whether something still speaks of a qube that had it before."""

    async def create(self, creator: Qube, wanted: Wanted, inherits: Inherits = every_tag) -> Qube:
        """Make the qube, halted, and everything that it has from its template and from its creator; durable.

        Args:
            inherits: which of its template's tags a disposable gets.

        Raises:
            NoSuchLabel, QubeExists, NoSuchQube (the template): in this order.
            BadValue, BadPropertyValue: the template cannot be one for this class, or there is none.
            QubesError: there is no such pool, or no room for another qube.
            OverLimit: its owner may not have it.
            StorageError, StoreError: its files cannot be made, or it cannot be made durable; there is no
                qube.
        """
        system = self._keeper.system
        if wanted.label not in system.labels:
            raise NoSuchLabel("no such label; list them with admin.label.List")
        if wanted.name in system.qubes:
            raise QubeExists(f"a qube {wanted.name!r} is there already")
        template = _template(self._keeper, wanted)
        for pool in (*wanted.pools.values(), *(() if wanted.pool is None else (wanted.pool,))):
            if pool not in system.pools:
                raise QubesError(f"no pool {pool[:64]!r}")
        properties: dict[str, Value] = {"label": wanted.label}
        if template is not None:
            properties["template"] = template.name
        self._keeper.budgets.check_more(owner_of_new(creator), Use(qubes=1))
        number = self._numbers.draw(system, self.is_kept) if wanted.klass is Klass.DISPOSABLE else None
        return await self._add(creator, wanted, properties, number, inherits)

    async def create_disposable(
        self, creator: Qube | None, template: Qube, inherits: Inherits = every_tag
    ) -> Qube:
        """Make an unnamed disposable that is removed when it shuts down, durable; it is not started.

        Args:
            creator: ``None`` for one that is to wait in the queue of its template (``preloading``).
            inherits: which of its template's tags it gets.

        Raises:
            QubesError: no disposables can be made from the template, or there is no number free.
            OverLimit: its owner may not have it.
            StorageError, StoreError: as with ``create``.
        """
        if not makes_disposables(template):
            raise QubesError(f"no disposables can be made from qube {template.name!r}")
        if creator is not None:
            # Before a number is drawn: it would rest for long, though nothing was made.
            self._keeper.budgets.check_more(owner_of_new(creator), Use(qubes=1))
        number = self._numbers.draw(self._keeper.system, self.is_kept)
        wanted, properties = _passing(f"disp{number}", template)
        return await self._add(creator, wanted, properties, number, inherits)

    def would_be_made(self, qube: Qube, template: Qube) -> Qube:
        """What ``create_disposable`` would make now in the place of this qube, for nobody.

        Raises:
            QubesError: it would make none.
        """
        draft = Draft(self._keeper)
        wanted, properties = _passing(qube.name, template)
        start = Qube(qube.name, qube.qid, qube.uuid, qube.klass, properties, dispid=qube.dispid)
        draft.put(_tracked(draft, _planned(draft, wanted, start, every_tag)))
        draft.tell(QubeAdded(None, qube.name))  # extensions add to a new qube
        return draft.system.qubes[qube.name]

    async def _add(
        self,
        creator: Qube | None,
        wanted: Wanted,
        properties: Mapping[str, Value],
        number: int | None,
        inherits: Inherits,
    ) -> Qube:
        """Make the qube's files, then the qube; ``number`` is that of a disposable.

        What the qube has from others is settled when it is added: others may have changed while its files
        were being made, and a name or a number that it was to have may not have been taken, being claimed.
        """
        template = (
            self._keeper.system.qubes.get(str(properties.get("template"))) if number is not None else None
        )
        firewall = None if template is None else await self._firewalls.copied(template)
        # Nothing waits between the choice of a number and its claim.
        qid = self._free_qid(creator)
        start = Qube(wanted.name, qid, str(uuid4()), wanted.klass, properties, dispid=number)

        def plan(draft: Draft) -> Qube:
            maker = None if creator is None else self._keeper.current(creator)
            return _owned(_planned(draft, wanted, start, inherits), maker)

        planned = plan(Draft(self._keeper))
        with self._keeper.budgets.holding(Made(planned)):
            async with self._storage.making(planned, firewall):
                draft = Draft(self._keeper)
                if wanted.label not in draft.system.labels:
                    raise NoSuchLabel("no such label; list them with admin.label.List")
                qube = plan(draft)
                if qube.volumes != planned.volumes:
                    raise QubesError(
                        f"its template or pool changed while qube {wanted.name!r} was made; try again"
                    )
                draft.put(_tracked(draft, qube))
                if creator is None:
                    _tell_waiting(draft, qube)
                else:
                    _tell(draft, self._keeper.current(creator), qube)
                draft.apply()
                made = self._keeper.system.qubes[qube.name]
                await self._keeper.durable()
        return made

    def _free_qid(self, creator: Qube | None) -> int:
        """A number that no qube has: the lowest for dom0, any for others, who could count hidden qubes by
        it."""
        used = {qube.qid for qube in self._keeper.system.qubes.values()} | self._storage.claimed()
        free = (qid for qid in range(1, MAX_QID + 1) if qid not in used)
        counted = creator is not None and creator.klass is Klass.ADMIN
        qid = next(free, None) if counted else secrets.choice([*free] or [None])
        if qid is None:
            raise QubesError(f"no room for more than {MAX_QID} qubes; remove some first")
        return qid


def _passing(name: str, template: Qube) -> tuple[Wanted, dict[str, Value]]:
    """A disposable that goes with its run, and the properties that it has of its own."""
    label = str(template.properties["label"])
    wanted = Wanted(Klass.DISPOSABLE, name, label, template.name)
    return wanted, {"label": label, "template": template.name, "auto_cleanup": True}


def _template(view: View, wanted: Wanted) -> Qube | None:
    if wanted.klass not in _DEFAULT_TEMPLATE:
        return None
    if wanted.template is None:
        raise BadValue(f"no template given, and {_DEFAULT_TEMPLATE[wanted.klass]!r} is not set")
    return _checked_template(view.system, wanted.klass, wanted.template)


def _checked_template(system: System, klass: Klass, name: str) -> Qube:
    template = system.qubes.get(name)
    if template is None:
        raise NoSuchQube(f"no qube {name!r}")
    if klass is Klass.APP and template.klass is not Klass.TEMPLATE:
        raise BadPropertyValue(f"qube {name!r} is no TemplateVM")
    if klass is Klass.DISPOSABLE and not makes_disposables(template):
        raise BadValue(f"no disposables can be made from qube {name!r}: 'template_for_dispvms' is False")
    return template


def _owned(qube: Qube, creator: Qube | None) -> Qube:
    owner = None if creator is None else owner_of_new(creator)
    return qube if owner is None else qube.with_feature(OWNER, owner)


def _planned(draft: Draft, wanted: Wanted, qube: Qube, inherits: Inherits) -> Qube:
    """The qube with what it has from its class, its template and the pools, as they are now."""
    named = qube.properties.get("template")
    template = None if named is None else _checked_template(draft.system, wanted.klass, str(named))
    if wanted.klass is Klass.DISPOSABLE and template is not None:
        qube = _copied(qube, template, inherits)
    if wanted.klass is not Klass.REMOTE and read(draft, None, "check_updates_vm").value is False:
        qube = qube.with_feature("check-updates", "")
    return replace(qube, volumes=volumes.layout(draft, qube, wanted.pool, wanted.pools))


def _tell(draft: Draft, creator: Qube, qube: Qube) -> None:
    """The events of a new qube, and between them what it has from its creator."""
    on_disk = QubeCreatedOnDisk(qube.name)
    draft.tell(QubeAdded(None, qube.name))
    if qube.klass is Klass.DISPOSABLE:
        draft.tell(on_disk)
    belong_to(draft, qube.name, creator, bool(qube.properties.get("auto_cleanup")))
    if qube.klass not in (Klass.DISPOSABLE, Klass.REMOTE):
        draft.tell(on_disk)


def _tell_waiting(draft: Draft, qube: Qube) -> None:
    """The events of a disposable that is nobody's yet, and between them its place in the queue."""
    draft.tell(QubeAdded(None, qube.name))
    waiting.enter(draft, qube.name)
    draft.tell(QubeCreatedOnDisk(qube.name))


def _copied(qube: Qube, template: Qube, inherits: Inherits) -> Qube:
    """A disposable with what its template has, except where it was given its own (``spec/domains.md``
    6.5), and whose it is: it is its maker's."""
    settable = table(qube.klass)
    properties = {
        name: value
        for name, value in template.properties.items()
        if name in settable and settable[name].settable is Settable.YES
    }
    features = {
        name: value
        for name, value in template.features.items()
        if name != OWNER and not name.startswith("preload-dispvm")
    }
    tags = frozenset(tag for tag in template.tags if not is_tracking(tag) and inherits(tag))
    return replace(qube, properties={**properties, **qube.properties}, features=features, tags=tags)


def _tracked(draft: Draft, qube: Qube) -> Qube:
    """With the tags that repeat its properties."""
    kept = set(qube.tags)
    for name in TRACKED:
        if name in table(qube.klass):
            tag = f"{name}-{read(draft, qube, name).value}"
            if read(draft, qube, name).value is not None and is_tag(tag):
                kept.add(tag)
    return replace(qube, tags=frozenset(kept))
