"""What one running qube has in its database of ours, and how it becomes something else."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from qubesd.core.guest_database import GuestDatabase
from qubesd.core.network_entries import part_of
from qubesd.core.written import Written


class Page:
    """The entries of one run, in parts of which no two have a key in common.

    A part is brought to what it should be by what differs, and remembers how far it got, so that a disk that
    failed in the middle is made good by the next change.
    """

    def __init__(
        self, database: GuestDatabase, written: Written, uuid: str, xid: int, left: Collection[str] = ()
    ) -> None:
        """``left`` are the keys that an earlier daemon may have written into this database."""
        self.database = database
        self.uuid = uuid
        self._written = written
        self._xid = xid
        self._recorded = frozenset(left)
        self._parts: dict[str, dict[str, str | None]] = {}
        """Values by key; ``None`` where an earlier daemon wrote one."""
        for key in left:
            self._parts.setdefault(part_of(key), {})[key] = None

    def parts(self) -> list[str]:
        """Those of which something stands there."""
        return list(self._parts)

    def put(self, part: str, entries: Mapping[str, str]) -> bool:
        """Have these entries in the part and no others; whether anything was otherwise.

        Raises:
            OSError: it is done in part or not at all.
        """
        known = self._parts.get(part, {})
        gone = sorted(known.keys() - entries.keys())
        new = sorted(key for key in entries if known.get(key) != entries[key])
        self._record(entries)
        self._parts[part] = known
        for key in gone:
            self.database.remove(key)
            del known[key]
        for key in new:
            self.database.write(key, entries[key])
            known[key] = entries[key]
        if not known:
            del self._parts[part]
        return bool(gone or new)

    def _record(self, more: Collection[str]) -> None:
        """Before they are there: what an interrupted write leaves is known."""
        if self._recorded.issuperset(more):
            return
        keys = frozenset(more).union(*self._parts.values())
        self._written.keep(self.uuid, self._xid, keys)
        self._recorded = keys
