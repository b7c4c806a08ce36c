"""Sockets in the file system: made so that a path is there only once it answers, and never over a living
one."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BACKLOG = 1_024


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect: the mode of the socket and, where given, its owner and group by id."""

    mode: int
    owner: int | None = None
    group: int | None = None


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of the path that fits into a socket's address, which ends at 107 bytes, however long it is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def bind(path: Path, access: Access) -> socket.socket:
    """A socket that listens under a name of its own; ``publish`` gives it ``path``.

    Raises:
        OSError: the place cannot be used; ``EEXIST`` where another daemon answers there already.
    """
    if answers(path):
        raise OSError(errno.EEXIST, "another daemon answers on this socket", str(path))
    hidden = _hidden(path)
    hidden.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # Nobody else may connect before mode and owner are as they shall be.
        before = os.umask(0o177)
        try:
            with short_path(hidden) as name:
                listening.bind(name)
        finally:
            os.umask(before)
        if access.owner is not None or access.group is not None:
            os.chown(
                hidden,
                -1 if access.owner is None else access.owner,
                -1 if access.group is None else access.group,
            )
        os.chmod(hidden, access.mode)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        hidden.unlink(missing_ok=True)
        raise
    return listening


def publish(path: Path) -> None:
    """Put the socket that ``bind`` made in its place, over one that nobody answers on."""
    _hidden(path).replace(path)


def answers(path: Path) -> bool:
    """Whether somebody listens there, who does not notice: a connection were one more caller to turn away.

    Raises:
        OSError: something else than a socket is in the way.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "this is in the way of a socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, short_path(path) as name:
        # The kernel looks for a socket at the path first, and then whether it is of the same kind.
        return probe.connect_ex(name) == errno.EPROTOTYPE


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
