"""The Policy Admin API as qubesd serves it.

The work blocks on the disk, so a thread of its own does it, one call after the other. A caller has one call
in line at a time, so that whoever floods it with edits waits for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING

from broker.editing.admin import answer
from broker.editing.edits import PolicyEdits
from broker.editing.entry import Author
from broker.editing.table import METHODS
from qubesd.api.method import Command, Method, Reply, Text
from qubesd.errors import PolicyAdminError

if TYPE_CHECKING:
    from qubesd.core.core import Core


class _Turn:
    """The calls of one caller, of which one at a time is in line."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.calls = 0


class PolicyCalls:
    """The calls on one policy. ``close`` ends the thread."""

    def __init__(self, edits: PolicyEdits) -> None:
        self._edits = edits
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy-edits")
        self._turns: dict[str, _Turn] = {}

    async def serve(self, core: Core, command: Command) -> Reply:
        """Carry one call out. Raises as ``policy_admin.answer``."""
        called = command.service, command.argument, command.value or b""
        async with self._turn(command.caller.uuid):
            content = await asyncio.get_running_loop().run_in_executor(
                self._thread, copy_context().run, answer, self._edits, Author(command.caller.name), *called
            )
        try:
            return Text(content.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise PolicyAdminError("this file is no UTF-8 and cannot be told here: see it in dom0") from error

    @asynccontextmanager
    async def _turn(self, caller: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(caller, _Turn())
        turn.calls += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.calls -= 1
            if not turn.calls:
                del self._turns[caller]

    def methods(self) -> Mapping[str, Method]:
        """The lines of the table, served."""
        return {service: replace(method, handler=self.serve) for service, method in METHODS.items()}

    def close(self) -> None:
        self._thread.shutdown()
