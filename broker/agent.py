"""The user's agent: asking and telling whoever sits in front of a GUI qube (``spec/policy-daemon.md`` 3).

The agent of dom0 answers on sockets among its qrexec services; that of another qube is called through
``qrexec-client``. An agent that is lost, late or too talkative has said nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, cast

from broker.sockets import short_path
from policy_engine import Asked, Request, World
from qubesd.core.device_questions import Question
from qubesd.model.state import DOM0

_log = logging.getLogger(__name__)

ASK_PATIENCE = 10 * 60.0
"""Seconds that the user may think."""

NOTIFY_PATIENCE = 30.0
"""Seconds that an agent may take for a notification."""

MAX_ANSWER = 4_096
"""Bytes of an agent's answer; a right one is far shorter."""

QREXEC_CLIENT = "/usr/bin/qrexec-client"


class Note(NamedTuple):
    """What the user of one GUI qube is told: ``resolution`` is ``allow`` or ``deny``, ``target`` the resolved
    one of an allow, and the caller's own words for a deny."""

    screen: str
    resolution: str
    service: str
    argument: str
    source: str
    target: str


class Agents:
    """The agents of all GUI qubes.

    Args:
        services: the folder with the sockets ``policy.Ask`` and ``policy.Notify`` of dom0's own agent.
        client: the program that calls a service in a qube.
        ask_patience, notify_patience: seconds, see the constants.
    """

    def __init__(
        self,
        services: Path,
        client: str = QREXEC_CLIENT,
        ask_patience: float = ASK_PATIENCE,
        notify_patience: float = NOTIFY_PATIENCE,
    ) -> None:
        self._services = services
        self._client = client
        self._ask_patience = ask_patience
        self._notify_patience = notify_patience

    async def ask(self, screen: str, asked: Asked, request: Request, world: World) -> str | None:
        """The words of the user's agent, exactly; ``None`` where it could not be asked."""
        parameters = {
            "source": asked.source,
            "service": request.service,
            "argument": request.argument,
            "targets": list(asked.targets),
            "default_target": asked.default_target or "",
            "icons": icons(world),
        }
        answer = await self._call(screen, "policy.Ask", parameters, self._ask_patience)
        return None if answer is None else answer.decode("ascii", "backslashreplace")

    async def tell(self, note: Note) -> None:
        """Show a notification; that nobody is there to show it changes nothing."""
        parameters = {
            "resolution": note.resolution,
            "service": note.service,
            "argument": note.argument,
            "source": note.source,
            "target": note.target,
        }
        await self._call(note.screen, "policy.Notify", parameters, self._notify_patience)

    async def place(self, question: Question) -> str | None:
        """Ask to which qube a device may go; the words of the agent, exactly (``spec/devices.md`` 8)."""
        parameters = {
            "source": question.source,
            "device_name": question.device_name,
            "argument": question.argument,
            "targets": list(question.targets),
            "default_target": question.default_target,
            "icons": dict(question.icons),
        }
        answer = await self._call(question.screen, "device-agent.GUI", parameters, self._ask_patience)
        return None if answer is None else answer.decode("ascii", "backslashreplace")

    async def _call(
        self, screen: str, service: str, parameters: Mapping[str, object], patience: float
    ) -> bytes | None:
        message = json.dumps(parameters).encode("ascii")
        try:
            async with asyncio.timeout(patience):
                if screen == DOM0:
                    return await _over_socket(self._services / service, service, message)
                return await _through_client(self._client, screen, service, message)
        except TimeoutError:
            _log.warning("%s: the agent in %r said nothing for %.0f s", service, screen, patience)
        except OSError as error:
            _log.warning("%s: no agent in %r: %s", service, screen, error.strerror or error)
        return None


def icons(world: World) -> dict[str, str]:
    """The icon of every qube, and of a disposable of every template for them."""
    found = {qube.name: qube.icon for qube in world}
    found |= {
        f"@dispvm:{qube.name}": qube.icon.replace("app", "disp")
        for qube in world
        if qube.template_for_dispvms
    }
    return found


async def _over_socket(path: Path, service: str, message: bytes) -> bytes:
    with short_path(path) as name:
        reader, writer = await asyncio.open_unix_connection(name, limit=MAX_ANSWER)
    with closing(writer):
        writer.write(f"{service} dom0 name dom0\0".encode("ascii") + message)
        writer.write_eof()
        return await _bounded(reader)


async def _through_client(client: str, screen: str, service: str, message: bytes) -> bytes:
    """Raises ``OSError`` where the client fails."""
    transport, call = await asyncio.get_running_loop().subprocess_exec(
        _Call,
        client,
        "-d",
        screen,
        f"DEFAULT:QUBESRPC {service} dom0",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        to_client = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        to_client.write(message)
        to_client.close()
        await call.said
        status = transport.get_returncode()
    finally:
        # Kills a client that still runs.
        transport.close()
        await call.exited
    if status:
        raise OSError(f"{client} ended with status {status}")
    return bytes(call.untrusted_answer)


class _Call(asyncio.SubprocessProtocol):
    """A run of the client: ``said`` is done when there is nothing more to wait for, be it that the answer is
    too long already; ``exited`` when the process has ended."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.untrusted_answer = bytearray()
        self.said: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if len(self.untrusted_answer) <= MAX_ANSWER:
            self.untrusted_answer += data
        if len(self.untrusted_answer) > MAX_ANSWER and not self.said.done():
            self.said.set_result(None)

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.said.done():
            self.said.set_result(None)


async def _bounded(reader: asyncio.StreamReader) -> bytes:
    """All that comes. What is too long is cut, and then is no answer that anybody waits for."""
    untrusted_answer = bytearray()
    while len(untrusted_answer) <= MAX_ANSWER:
        untrusted_data = await reader.read(MAX_ANSWER)
        if not untrusted_data:
            break
        untrusted_answer += untrusted_data
    return bytes(untrusted_answer)
