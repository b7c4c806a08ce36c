"""Sockets that the service manager has made and listens on, so that callers wait for a daemon that is not
there yet rather than miss it (``sd_listen_fds``)."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

Given = Mapping[Path, socket.socket]
"""The listening sockets by the paths that callers find them at."""

NONE_GIVEN: Given = MappingProxyType({})

_FIRST = 3
"""The number of the first descriptor that is handed over; the others follow."""


def given_sockets(paths: Iterable[Path]) -> Given:
    """The sockets that this process was started with: one for each path, or none at all.

    They are told apart by the address that each is bound to, which is what callers go by; the names that the
    manager gives them (``LISTEN_FDNAMES``) are the same for all sockets of a unit. The variables are taken
    out of the environment, so that no program that is run from here takes the sockets for its own.

    Raises:
        OSError: what was handed over is not exactly a listening stream socket at each of the paths.
    """
    process, count, _ = (os.environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    # Inherited by a program that they were not meant for, the variables mean nothing.
    if process != str(os.getpid()) or not count:
        return NONE_GIVEN
    if not count.isascii() or not count.isdigit():
        raise OSError(errno.EINVAL, f"expected a number of sockets, found {count!r}", "LISTEN_FDS")
    expected = {_resolved(path): path for path in paths}
    found: dict[Path, socket.socket] = {}
    with ExitStack() as undo:
        for number in range(_FIRST, _FIRST + min(int(count), len(expected) + 1)):
            listening = undo.enter_context(_listening(number))
            place = _resolved(Path(listening.getsockname()))
            path = expected.pop(place, None)
            if path is None:
                raise OSError(errno.EINVAL, "a socket of the service manager, but none of ours", str(place))
            found[path] = listening
        if expected:
            missing = str(next(iter(expected)))
            raise OSError(errno.EINVAL, "the service manager gave sockets, but none for this", missing)
        undo.pop_all()
    return found


def _listening(number: int) -> socket.socket:
    """The socket that a descriptor is, no longer passed on. Raises ``OSError`` where it is no stream socket
    that listens at a path."""
    try:
        found = socket.socket(fileno=number)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"file descriptor {number}") from error
    address = found.getsockname() if found.family == socket.AF_UNIX else ""
    if (
        found.type != socket.SOCK_STREAM
        or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        or not isinstance(address, str)
        or not address
    ):
        found.close()
        raise OSError(errno.EINVAL, "not a stream socket that listens at a path", f"file descriptor {number}")
    found.setblocking(False)
    found.set_inheritable(False)
    return found


def _resolved(path: Path) -> Path:
    """The same for every way to write the place of a socket: ``/var/run`` is a link."""
    return path.parent.resolve() / path.name
