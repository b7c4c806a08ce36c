"""Calling a service in a running qube's guest, by the program that the configuration names.

What a guest says in return is not looked at; only whether the program ended well is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
from collections.abc import Iterable

from qubesd.core.keeper import Keeper
from qubesd.core.power_events import DomainCmdPreRun
from qubesd.errors import NotSupported, QubesError
from qubesd.model import features
from qubesd.model.state import Qube

_log = logging.getLogger(__name__)

_PATIENCE = 60.0
"""Seconds that a guest may take (``spec/domains.md`` 6.4)."""
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class Guests:
    """The guests of one keeper's qubes."""

    def __init__(self, keeper: Keeper, patience: float = _PATIENCE) -> None:
        """``patience`` is in seconds."""
        self._keeper = keeper
        self._patience = patience
        self._words = shlex.split(keeper.config.guest_service)

    async def call(self, qube: Qube, service: str, data: bytes = b"") -> None:
        """Run the service as root in the qube, with this on its standard input.

        Raises:
            NotSupported: the configuration names no program.
            QubesError: an extension refuses it, or it cannot be run, fails or does not end in time.
        """
        words = self.about_to_run(qube, service)
        where = f"service {service!r} in qube {qube.name!r}"
        nothing = asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=nothing,
                stderr=nothing,
                env=_ENVIRONMENT,
                # So that it can be ended with all that it started.
                start_new_session=True,
            )
        except OSError as error:
            raise QubesError(f"{where}: {words[0]} cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(self._patience):
                await process.communicate(data)
        except TimeoutError:
            raise QubesError(f"{where} did not end within {self._patience:g} seconds") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            raise QubesError(f"{where} failed with status {process.returncode}")

    def about_to_run(self, qube: Qube, service: str) -> list[str]:
        """Tell of it, for the program with its arguments that runs the service as root in the qube.

        Raises:
            NotSupported: the configuration names no program.
            QubesError: an extension refuses it.
        """
        if not self._words:
            raise NotSupported("services in guests cannot be called: 'guest_service' is not configured")
        self._keeper.bus.publish(DomainCmdPreRun(qube.name))
        return [word.replace("{service}", service).replace("{qube}", qube.name) for word in self._words]

    async def tell(self, qubes: Iterable[Qube], service: str) -> None:
        """Call the service in all of these that run and have an agent, at once. Failures go to the log."""
        if self._words:
            await asyncio.gather(*(self._tell(qube, service) for qube in qubes if self._listens(qube)))

    def _listens(self, qube: Qube) -> bool:
        runs = self._keeper.running(qube.name).state == "Running"
        return runs and bool(features.with_template(self._keeper, qube, "qrexec"))

    async def _tell(self, qube: Qube, service: str) -> None:
        try:
            await self.call(qube, service)
        except QubesError as error:
            _log.warning("%s", error)
