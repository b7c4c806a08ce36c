"""Telling the service manager how far the daemon is (``sd_notify``)."""

from __future__ import annotations

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
