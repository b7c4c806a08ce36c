"""The agent at work: its socket open for as long as a front is there to ask."""

from __future__ import annotations

import grp
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.prompts.desk import Desk
from broker.prompts.door import Door
from broker.prompts.front import Front
from broker.sockets import Access

GROUP = "qubes"

_log = logging.getLogger(__name__)


class AgentError(Exception):
    """The agent cannot run; the text says why and what to do."""


@asynccontextmanager
async def serving(front: Front, path: Path, timeout: float) -> AsyncIterator[None]:
    """Ask and tell through this front, each question for ``timeout`` seconds. Raises ``AgentError`` where
    there can be no socket."""
    desk = Desk(front, timeout)
    door = Door(desk)
    try:
        try:
            door.open(path, _access())
        except OSError as error:
            raise AgentError(f"{path}: {error.strerror or error}; {_next_step(error)}") from None
        yield
    finally:
        desk.close()
        door.close()


def _access() -> Access:
    """Only the user and the group of those who may call as dom0; only the user where there is no such
    group."""
    try:
        return Access(0o660, group=grp.getgrnam(GROUP).gr_gid)
    except KeyError:
        _log.warning("no group %r on this machine: only this user can ask", GROUP)
        return Access(0o600)


def _next_step(error: OSError) -> str:
    if isinstance(error, FileExistsError):
        return "end the agent that runs already, or give --socket-path"
    if isinstance(error, PermissionError):
        return f"be a member of the group {GROUP!r} and log in anew, or give --socket-path"
    return "make its folder, or give --socket-path"
