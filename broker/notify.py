"""Telling the service manager how far the daemon is, and that it is alive (``sd_notify``)."""

from __future__ import annotations

import asyncio
import os
import socket


def notify(state: str) -> None:
    """Send one assignment such as ``READY=1``; nothing where no service manager asked for it. Raises
    ``OSError`` where it asked and cannot be reached."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.sendto(state.encode("ascii"), address)


def give_signs_of_life() -> None:
    """Tell it, twice in the time in which it wants to hear of us (``WatchdogSec=``), that the running loop
    turns; nothing where it does not want to."""
    asked = os.environ.get("WATCHDOG_USEC")
    if asked and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
        _sign(asyncio.get_running_loop(), int(asked) / 2_000_000)


def _sign(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    loop.call_later(seconds, _sign, loop, seconds)
    notify("WATCHDOG=1")
