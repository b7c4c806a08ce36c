"""What an owner may use, and the refusal of what goes beyond (``docs/decisions/0017``).

Every change of the system asks ``check``, in the same turn of the loop in which it is made. What takes longer
(files, a start) asks before it begins, and holds until it has ended what it asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from qubesd.bus import Bus
from qubesd.core.usage import Promise, Usage, Use
from qubesd.errors import OverLimit
from qubesd.model.state import Qube
from qubesd.model.view import View


@dataclass(frozen=True, slots=True)
class Allowance:
    """The most of each figure of a ``Use``, memory and storage in bytes; ``None`` for no limit."""

    qubes: int | None = None
    running: int | None = None
    memory: int | None = None
    storage: int | None = None


UNLIMITED = Allowance()

_FIGURES = ("qubes", "running", "memory", "storage")


def unlimited(owner: Qube | None) -> Allowance:
    """What every owner may have where nobody has said otherwise."""
    return UNLIMITED


class Budgets:
    """The budgets of one view's owners.

    Only what grows is refused: whoever is above a limit already, since it was lowered, keeps what is there
    and can make it less.
    """

    def __init__(self, bus: Bus, view: View) -> None:
        self._view = view
        self._usage = Usage(bus, view)
        self.allowance_of: Callable[[Qube | None], Allowance] = unlimited
        """Asked whenever something of this owner's grows; ``None`` is an owner that is gone."""

    def used(self, owner: str) -> Use:
        """What the qubes of the owner of this uuid use, with what is under way."""
        return self._usage.of(owner)

    def check(self, draft: View, touched: Iterable[str]) -> None:
        """Refuse the draft's change of the qubes of these names where it takes an owner beyond a limit.

        Raises:
            OverLimit: whose, and which.
        """
        growth = self._usage.growth(draft, touched)
        self._refuse({owner: (self.used(owner), more) for owner, more in growth.items()})

    def check_more(self, owner: str | None, more: Use) -> None:
        """Refuse what would be, before anything is done for it; ``None`` for an owner is nobody.

        Raises:
            OverLimit: it would be refused later.
        """
        if owner is not None:
            self._refuse({owner: (self.used(owner), more)})

    @contextmanager
    def holding(self, *promises: Promise) -> Iterator[None]:
        """Inside, what is promised counts as if it was so.

        Raises:
            OverLimit: it would take an owner beyond a limit; nothing is promised.
        """
        growth = self._usage.keep(promises)
        try:
            self._refuse({owner: (self.used(owner) - more, more) for owner, more in growth.items()})
            yield
        finally:
            self._usage.drop(promises)

    def _refuse(self, asked: Mapping[str, tuple[Use, Use]]) -> None:
        """``asked`` is, by owner, what there is and what is to come."""
        for owner, (have, more) in asked.items():
            growing = [what for what in _FIGURES if getattr(more, what) > 0]
            allowance = self.allowance_of(self._view.system.find(f"uuid:{owner}")) if growing else UNLIMITED
            for what in growing:
                limit, now, added = (getattr(one, what) for one in (allowance, have, more))
                if limit is not None and now + added > limit:
                    raise OverLimit(owner, what, limit, now, added)
