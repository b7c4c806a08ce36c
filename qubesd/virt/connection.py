"""One connection to libvirt: blocking calls on a few threads, news on the loop, a new one after a loss.

What all drivers share. A driver says with it what libvirt is to do; nothing here knows any hypervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

import libvirt

from qubesd.errors import HypervisorLost, NotSupported, QubeNotStarted, QubesError
from qubesd.virt import event_loop
from qubesd.virt.hypervisor import Domain, DomainChange, DomainState

T = TypeVar("T")
_log = logging.getLogger(__name__)

_WORKERS = 8
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 10.0
_KEEPALIVE = (5, 3)
"""A distant libvirt that is silent for so many seconds so many times is lost: no call waits for ever."""

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.STOPPING,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.OFF,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.SUSPENDED,
}
_NEWS = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: DomainState.OFF,
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: DomainState.STOPPING,
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: DomainState.SUSPENDED,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: DomainState.CRASHED,
}
"""Events that are not here (defined, undefined) change no state."""


def state_of(domain: Any) -> DomainState:
    """The state of a libvirt domain; on a worker thread only."""
    return _STATES.get(domain.state()[0], DomainState.RUNNING)


class Connection:
    """The one connection of a driver: its news and its calls all go through it."""

    def __init__(self, uri: str, connect: Callable[[str], Any] = libvirt.open) -> None:
        """``connect`` makes libvirt's own connection out of the URI."""
        self._uri = uri
        self._connect = connect
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="libvirt call")
        self._handle: Any = None
        self._callback = -1
        self._reconnecting: asyncio.Task[None] | None = None

    async def open(self, changed: Callable[[DomainChange], None], reconnected: Callable[[], None]) -> None:
        """Connect and listen; see ``Hypervisor.open``.

        Raises:
            HypervisorLost: libvirt cannot be reached at that URI.
        """
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self._reconnected = reconnected
        event_loop.ensure_running()
        await self._take_up()

    async def close(self) -> None:
        """Stop listening and let go of the connection and of the threads."""
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
        handle, self._handle = self._handle, None
        if handle is not None:
            await self._loop.run_in_executor(self._workers, _let_go, handle, self._callback)
        self._workers.shutdown(wait=False)

    async def ask(self, question: Callable[[Any], T]) -> T:
        """What ``question`` answers, called with libvirt's connection on a worker thread.

        Raises:
            HypervisorLost: there is no connection, or it broke meanwhile.
            NotSupported: libvirt's driver has no such operation.
            QubesError: libvirt refused.
        """
        handle = self._handle
        if handle is None:
            raise HypervisorLost(
                f"no connection to the hypervisor at {self._uri!r}; try again once it is back"
            )
        try:
            return await self._loop.run_in_executor(self._workers, copy_context().run, question, handle)
        except libvirt.libvirtError as error:
            if not await self._loop.run_in_executor(self._workers, _alive, handle):
                self._lost(handle)
                raise HypervisorLost(f"the connection to {self._uri!r} broke: {error}") from error
            _log.warning("hypervisor: %s", error)
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                raise NotSupported(f"the hypervisor cannot do that: {error}") from error
            raise QubesError(f"the hypervisor refused: {error}") from error

    async def ask_domain(self, uuid: str, question: Callable[[Any], T]) -> T:
        """The same, with libvirt's domain of that uuid.

        Raises:
            QubeNotStarted: the hypervisor has no such domain; and what ``ask`` raises.
        """

        def look_up_and_ask(handle: Any) -> T:
            domain = find(handle, uuid)
            if domain is None:
                raise QubeNotStarted(f"the hypervisor has no domain {uuid}")
            return question(domain)

        return await self.ask(look_up_and_ask)

    async def _take_up(self) -> None:
        try:
            answer = await self._loop.run_in_executor(self._workers, self._connect_and_listen)
        except libvirt.libvirtError as error:
            raise HypervisorLost(f"cannot reach the hypervisor at {self._uri!r}: {error}") from error
        self._handle, self._callback = answer

    def _connect_and_listen(self) -> tuple[Any, int]:
        """On a worker thread: connect, ask for news, and for signs of life where a driver has them."""
        handle = self._connect(self._uri)
        with contextlib.suppress(libvirt.libvirtError):  # what is in our own process cannot fall silent
            handle.setKeepAlive(*_KEEPALIVE)
        handle.registerCloseCallback(self._closed, None)
        kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        return handle, handle.domainEventRegisterAny(None, kind, self._news, handle)

    def _closed(self, handle: Any, _reason: int, _opaque: None) -> None:
        """On libvirt's thread."""
        self._loop.call_soon_threadsafe(self._lost, handle)

    def _news(self, _handle: Any, domain: Any, event: int, _detail: int, handle: Any) -> None:
        """On libvirt's thread, in the order in which things happened."""
        if event in _NEWS:
            state = _NEWS[event]
            xid = -1 if state is DomainState.OFF else domain.ID()
            news = DomainChange(domain.UUIDString(), Domain(state, xid))
            self._loop.call_soon_threadsafe(self._tell, handle, news)

    def _tell(self, handle: Any, news: DomainChange) -> None:
        if handle is self._handle:
            self._changed(news)

    def _lost(self, handle: Any) -> None:
        if handle is not self._handle:
            return
        self._handle = None
        _log.error(
            "hypervisor: the connection to %r is lost, calls that need it fail until it is back", self._uri
        )
        self._workers.submit(_let_go, handle, self._callback)
        self._reconnecting = self._loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        for delay in _delays():
            await asyncio.sleep(delay)
            try:
                await self._take_up()
            except HypervisorLost:
                continue
            _log.warning("hypervisor: connected to %r again", self._uri)
            self._reconnected()
            return


def find(handle: Any, uuid: str) -> Any | None:
    """libvirt's domain of that uuid, ``None`` where there is none; on a worker thread only."""
    try:
        return handle.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _delays() -> Iterator[float]:
    """Seconds before each next try: doubling up to the longest, for ever."""
    return (min(_FIRST_DELAY * 2**n, _LONGEST_DELAY) for n in itertools.chain(range(8), itertools.repeat(8)))


def _alive(handle: Any) -> bool:
    try:
        return bool(handle.isAlive())
    except libvirt.libvirtError:
        return False


def _let_go(handle: Any, callback: int) -> None:
    """On a worker thread. A connection that broke refuses some of this, and is gone all the same."""
    for step in (
        lambda: handle.domainEventDeregisterAny(callback),
        handle.unregisterCloseCallback,
        handle.close,
    ):
        with contextlib.suppress(libvirt.libvirtError):
            step()
