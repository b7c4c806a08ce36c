"""What the doctor sees of single files: who may change them, who holds the store, and what their times say of
the clock."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from broker.operation.finding import Finding, error, ok, warning
from broker.operation.process import Process, named
from qubesd.config import Config
from qubesd.disk import reason

_LOCK = struct.Struct("hhqqi4x")
"""``struct flock``: kind, whence, start, length, process."""

AHEAD = 300.0
"""Seconds by which a file may be newer than the clock says it is now."""


def files(config: Config, own_config: Path) -> Iterator[Finding]:
    """Those that decide what this host does, which only root may change."""
    policy = (folder.glob("**/*") for folder in (config.policy_dir, config.policy_runtime))
    places = [own_config, config.store, config.callback_file, *(place for found in policy for place in found)]
    bad = [finding for place in places for finding in _changeable(place)]
    yield from bad
    if not bad:
        yield ok("files", "only root and the daemon's user may change the configuration, store and policy")


def _changeable(place: Path) -> Iterator[Finding]:
    try:
        found = place.stat()
    except FileNotFoundError:
        return
    except OSError as problem:
        yield warning("files", f"{place}: {reason(problem)}", "run this as root")
        return
    if found.st_mode & stat.S_IWOTH:
        yield error(
            "files", f"{place}: everybody may change it", f"chmod o-w {place}, and look what is in it"
        )
    elif found.st_uid not in (0, os.geteuid()):
        yield warning("files", f"{place}: belongs to user {found.st_uid}", f"chown root {place}")


def holder(store: Path, own: Process | None, always: bool) -> Iterator[Finding]:
    """Who holds the store: the daemon that runs, and nobody where none does.

    Args:
        own: the daemon that runs.
        always: whether it holds the store from its start; a stock one does once it has written it.
    """
    try:
        pid = _holder(store)
    except OSError:
        return  # said of the store already
    if own is None and pid is not None:
        yield error(
            "store",
            f"{store}: held by {named(pid)}, so that no daemon can start on it",
            f"kill {pid}, unless it is a qubesd that is just starting",
        )
    elif own is not None and pid != own.pid and always:
        yield error(
            "store",
            f"{store}: was replaced while {own} runs, which refuses every change since",
            "qubesd --check it, and restart the daemon to take it over",
        )


def _holder(store: Path) -> int | None:
    """The process that has the file locked as a store is; ``None`` for nobody."""
    with open(store, "rb", opener=_at_once) as file:
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _LOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
        was_replaced = not os.path.samestat(os.fstat(file.fileno()), store.stat())
    if was_replaced:
        return _holder(store)  # its holder has just written it
    return None if kind == fcntl.F_UNLCK else pid


def _at_once(place: str, flags: int) -> int:
    return os.open(place, flags | os.O_NONBLOCK)


def clock(places: Iterable[Path]) -> Finding:
    """Whether it is later than what was written on this host last."""
    now = time.time()
    for place in places:
        try:
            written = place.stat().st_mtime
        except OSError:
            continue
        if written > now + AHEAD:
            return error(
                "clock",
                f"it stands at {_told(now)}, and {place} was written at {_told(written)}",
                "set it: revisions, the audit and its age go by it; or touch the file, if its time is wrong",
            )
    return ok("clock", _told(now))


def _told(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
