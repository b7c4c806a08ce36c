"""What this run of the daemon knows of one qube's domain, and how to wait for news of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field, replace

from qubesd.model.view import Running
from qubesd.virt.hypervisor import Domain, DomainState

OFF = Domain(DomainState.OFF)

_WORDS = {
    DomainState.RUNNING: "Running",
    DomainState.PAUSED: "Paused",
    DomainState.SUSPENDED: "Suspended",
    DomainState.STOPPING: "Halting",
    DomainState.CRASHED: "Crashed",
}


def _held() -> asyncio.Event:
    """An event that is set: there is nothing to wait for."""
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True, eq=False)
class Run:
    """One qube's life. It is kept by uuid, so a later qube of the same name begins with one of its own.

    ``starting``: a start makes the domain, and news of it are the start's. ``announced``: the domain was told
    of, so its end must be. ``stop_pending``: it ended, and that is still to be dealt with.
    """

    uuid: str
    name: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    domain: Domain = OFF
    starting: bool = False
    announced: bool = False
    stop_pending: bool = False
    halted: asyncio.Event = field(default_factory=_held)
    """Set while no domain is announced and no stop is pending."""
    asked: Context | None = None
    """The context of whoever asked last for its end: what follows from that is part of their call."""
    _expected: list[tuple[DomainState, asyncio.Future[None]]] = field(default_factory=list)

    def announce(self) -> None:
        """From here on, the end of this domain is an event."""
        self.announced = True
        self.halted.clear()

    def turn(self, domain: Domain) -> None:
        """Take in news: the domain is now this. The rest about it was told when it was made."""
        of_same_domain = domain.state is not DomainState.OFF and domain.xid == self.domain.xid
        self.domain = replace(self.domain, state=domain.state) if of_same_domain else domain
        if domain.state is DomainState.OFF and self.announced:
            self.announced = False
            self.stop_pending = True
        for state, told in self._expected:
            if state is domain.state and not told.done():
                told.set_result(None)

    @contextmanager
    def expecting(self, state: DomainState) -> Iterator[asyncio.Future[None]]:
        """A future that is done with the next news of that state, also if it has changed again since."""
        entry = (state, asyncio.get_running_loop().create_future())
        self._expected.append(entry)
        try:
            yield entry[1]
        finally:
            self._expected.remove(entry)
            entry[1].cancel()

    def shown(self) -> Running:
        """The run as everybody sees it (``spec/domains.md`` 6.1)."""
        if self.domain.state is DomainState.OFF:
            return Running(state="Dying" if self.stop_pending else "Halted")
        word = "Transient" if self.starting else _WORDS[self.domain.state]
        return Running(word, self.domain.xid, self.domain.start_time, self.domain.stubdom_xid)
