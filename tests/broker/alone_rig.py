"""``qrexec-policy-daemon`` as a process, and a stock qubesd that says what it was told to say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.sockets import short_path
from tests.broker.policy_rig import Agent, exchange, lines

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which a test that waits fails."""

REQUEST = b"internal.GetSystemInfo+ dom0 name dom0\0"
"""What a stock qubesd is asked by the stock daemon, byte for byte."""

DOM0 = {
    "type": "AdminVM",
    "tags": [],
    "power_state": "Running",
    "uuid": "00000000-0000-0000-0000-000000000000",
}

Manner = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]
"""How qubesd behaves once it was asked, given the answer that would be right."""


async def right(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer)
    await writer.drain()


class StockQubesd:
    """``qubesd.internal.sock`` of a stock qubesd. ``domains`` is its system, ``asked`` counts the calls."""

    def __init__(self) -> None:
        self.domains: dict[str, dict[str, Any]] = {"dom0": DOM0}
        self.manner: Manner = right
        self.asked = 0
        self.wrong: list[bytes] = []

    def qube(self, name: str, number: int, **properties: Any) -> None:
        facts = {"type": "AppVM", "tags": [], "power_state": "Running", "uuid": uuid(number)}
        self.domains[name] = facts | properties

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()
        if not request:
            # Whoever only looks whether somebody is there.
            writer.close()
            return
        self.asked += 1
        if request != REQUEST:
            self.wrong.append(request)
        answer = b"0\0" + json.dumps({"domains": self.domains}).encode("ascii")
        try:
            await self.manner(reader, writer, answer)
        except ConnectionError:
            pass  # it would not have listened any longer
        finally:
            writer.close()


def uuid(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012x}"


@dataclass
class Alone:
    """The daemon below ``root``, qubesd and the agent that it asks."""

    root: Path
    qubesd: StockQubesd
    agent: Agent
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        return self.root / "run/qubes/policy.sock"

    async def ask(self, source: str, target: str, service: str, **more: str) -> str:
        """The answer to a question of the C qrexec daemon."""
        return (await exchange(self.socket, lines(source, target, service, **more), end=False)).decode(
            "ascii"
        )

    async def decides(self, source: str, target: str, service: str) -> str:
        """``allow`` or ``deny``."""
        answer = await self.ask(source, target, service, just_evaluate="yes")
        return answer.removeprefix("result=")

    async def comes_to(self, wanted: str, source: str, target: str, service: str) -> None:
        """Wait until this is how it decides."""
        await until_true(lambda: self.decides(source, target, service), wanted)

    async def tool(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, output and errors of ``qubes-policy``; ``root`` is taken out of both."""
        return await qubes_policy(self.root, *arguments)

    def write(self, text: str, name: str = "10-test.policy") -> None:
        (self.root / "etc/qubes/policy.d" / name).write_text(text, encoding="utf-8")

    def said(self) -> str:
        return (self.root / "errors").read_text(encoding="utf-8")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> float:
        """MiB that it has in the machine's memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit status once it was told to stop."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, PATIENCE)


async def qubes_policy(root: Path, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker.authoring.tool", "--root", str(root), *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        said = await process.communicate()
    out, err = (text.decode().replace(f"{root}/", "") for text in said)
    assert process.returncode is not None
    return process.returncode, out, err


async def until_true(look: Callable[[], Awaitable[object]], wanted: object = True) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := await look()) != wanted:
        assert time.monotonic() < deadline, f"expected {wanted!r}, found {found!r}"
        await asyncio.sleep(0.005)


def lay_out(root: Path) -> None:
    for folder in ("run/qubes/policy.d", "etc/qubes-rpc", "etc/qubes/policy.d"):
        (root / folder).mkdir(parents=True, exist_ok=True)


def start(root: Path) -> subprocess.Popen[bytes]:
    """A daemon whose messages go to a file."""
    command = [
        *(sys.executable, "-m", "broker.deciding.daemon"),
        *("--socket-path", str(root / "run/qubes/policy.sock")),
        *("--eval-socket-path", str(root / "etc/qubes-rpc/policy.EvalSimple")),
        *("--gui-socket-path", str(root / "etc/qubes-rpc/policy.EvalGUI")),
        *("--agent-path", str(root / "etc/qubes-rpc")),
        *("--qubesd-socket-path", str(root / "run/qubesd.internal.sock")),
        *("--policy-path", str(root / "run/qubes/policy.d")),
        *("--policy-path", str(root / "etc/qubes/policy.d")),
    ]
    with (root / "errors").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=log)


@asynccontextmanager
async def qubesd_at(root: Path, qubesd: StockQubesd) -> AsyncIterator[None]:
    """Serve it until the block ends."""
    path = root / "run/qubesd.internal.sock"
    with short_path(path) as name:
        server = await asyncio.start_unix_server(qubesd.serve, name)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


@asynccontextmanager
async def alone(root: Path, policy: str | None = "") -> AsyncIterator[Alone]:
    """A daemon whose policy is this text, ``None`` for no directory; it has to stop cleanly at the end."""
    lay_out(root)
    qubesd, agent = StockQubesd(), Agent(root / "client")
    agent.say("deny")
    process = None
    daemon = None
    if policy is None:
        (root / "etc/qubes/policy.d").rmdir()
    else:
        (root / "etc/qubes/policy.d/10-test.policy").write_text(policy, encoding="utf-8")
    servers = []
    for service in ("policy.Ask", "policy.Notify"):
        with short_path(root / "etc/qubes-rpc" / service) as name:
            servers.append(await asyncio.start_unix_server(agent.serve, name))
    try:
        async with qubesd_at(root, qubesd):
            process = start(root)
            daemon = Alone(root, qubesd, agent, process)
            await ready(daemon)
            yield daemon
            if process.poll() is None:
                assert await daemon.stop() == 0, daemon.said()
            assert "Traceback" not in daemon.said(), daemon.said()
            assert qubesd.wrong == []
    except BaseException:
        if daemon is not None:
            print(daemon.said())
        raise
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        for server in servers:
            server.close()


async def ready(daemon: Alone) -> None:
    async def there() -> bool:
        assert daemon.process.poll() is None, daemon.said()
        return "ready: " in daemon.said()

    await until_true(there)
