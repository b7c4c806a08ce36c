"""libvirt's event loop: one for the process, on a thread of its own.

``libvirtaio`` registers itself once in a process, for one asyncio loop, and must be used on that loop's
thread. libvirt's default implementation serves any number of connections and callers on any thread.
"""

from __future__ import annotations

import functools
import logging
import threading

import libvirt

_log = logging.getLogger(__name__)


@functools.cache
def ensure_running() -> None:
    """Start it unless it runs; to be called before a connection is opened, always on the same thread.

    libvirt also stops to print its errors: each is raised as an exception, and told by whoever catches it.
    """
    libvirt.registerErrorHandler(_silent, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_turn, name="libvirt events", daemon=True).start()


def _silent(_context: None, _error: tuple[object, ...]) -> None:
    """Errors reach the caller as ``libvirtError``."""


def _turn() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            _log.error("libvirt: event loop: %s", error)
            return
