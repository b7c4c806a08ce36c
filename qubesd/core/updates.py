"""What guests tell of the updates that there are for them (``spec/wire-protocol.md`` 8)."""

from __future__ import annotations

import time

from qubesd.core.draft import Draft
from qubesd.core.features import put_feature
from qubesd.core.keeper import Keeper
from qubesd.core.turns import Turns
from qubesd.core.volumes import Volumes
from qubesd.model.lineage import templates
from qubesd.model.properties import read, table
from qubesd.model.state import Qube

_AVAILABLE = "updates-available"


class Updates:
    """The news of one keeper's guests."""

    def __init__(self, keeper: Keeper, volumes: Volumes, turns: Turns) -> None:
        self._keeper = keeper
        self._turns = turns
        self._volumes = volumes

    async def note(self, qube: Qube, are_available: bool) -> None:
        """The qube says whether there are updates for it; durable.

        What a qube says of itself counts. What it says of its template does only where it is likely to be
        true: updates that are missing, the template not running to be updated, and the qube not behind it.
        """
        async with self._turns.of(qube):
            await self._note(self._keeper.current(qube), are_available)

    async def _note(self, qube: Qube, are_available: bool) -> None:
        about = self._spoken_of(qube)
        if about is None:
            return
        if about is not qube:
            if not are_available or await self._is_outdated(qube):
                return
            about = self._spoken_of(self._keeper.current(qube))  # it may be another template's by now
            if about is None or self._keeper.running(about.name).state != "Halted":
                return
        self._put(about, are_available)
        await self._keeper.durable()

    def _spoken_of(self, qube: Qube) -> Qube | None:
        """What its updates are those of: the qube, or the nearest template; ``None`` where nothing is."""
        chain = templates(self._keeper.system, qube)
        return next((each for each in chain if self._is_updateable(each)), None)

    def _put(self, qube: Qube, are_available: bool) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        qube = self._keeper.current(qube)
        draft = Draft(self._keeper)
        if qube.features.get(_AVAILABLE) and not are_available:
            put_feature(draft, qube.name, "last-update", now)
        put_feature(draft, qube.name, _AVAILABLE, "1" if are_available else "")
        put_feature(draft, qube.name, "last-updates-check", now)
        draft.apply()

    def _is_updateable(self, qube: Qube) -> bool:
        return "updateable" in table(qube.klass) and read(self._keeper, qube, "updateable").value is True

    async def _is_outdated(self, qube: Qube) -> bool:
        """Whether a volume of the qube is an older state of its template's."""
        for volume in qube.volumes.values():
            if volume.snap_on_start and (await self._volumes.facts(volume)).outdated:
                return True
        return False
