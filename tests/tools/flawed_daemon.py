"""``qrexec-policy-daemon`` behind a relay with one flaw, which the first argument names: what a fuzzer has to
find."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import Process
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from broker.deciding.daemon import parser
from broker.sockets import BACKLOG, Access, bind, publish, short_path

BEHIND = ".behind"
"""What is added to the names of the sockets of the daemon behind."""


class Relay:
    """Passes requests on to the daemon behind, and its answers back."""

    def __init__(self, flaw: str, daemon: Process) -> None:
        self._flaw = flaw
        self._daemon = daemon
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, place: Path, behind: Path) -> None:
        def take(reader: StreamReader, writer: StreamWriter) -> None:
            task = asyncio.create_task(self._relay(behind, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        # As the daemon does it: a path that is there before anybody listens looked like a finding of its own.
        await asyncio.start_unix_server(take, sock=bind(place, Access(0o600)), backlog=BACKLOG)
        publish(place)

    async def _relay(self, behind: Path, reader: StreamReader, writer: StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            if self._flaw == "hasty":
                await reader.read(10)
                writer.write(b"result=deny")
                return
            with socket.socket(socket.AF_UNIX) as daemon:
                with short_path(behind) as name:
                    # In a thread: where many wait to be taken, the loop's own way would not wait.
                    await asyncio.to_thread(daemon.connect, name)
                daemon.setblocking(False)
                passing = asyncio.create_task(self._pass_on(reader, daemon))
                try:
                    answer = await self._whole(daemon)
                finally:
                    passing.cancel()
                    await asyncio.gather(passing, return_exceptions=True)
                if not answer and self._flaw == "talkative":
                    answer = b"result=deny"
                writer.write(answer)

    async def _whole(self, daemon: socket.socket) -> bytes:
        """All that the daemon says, also where it closes before it has read everything."""
        answer = b""
        with suppress(ConnectionError):
            while data := await asyncio.get_running_loop().sock_recv(daemon, 1 << 16):
                answer += data
        return answer

    async def _pass_on(self, reader: StreamReader, daemon: socket.socket) -> None:
        while untrusted_data := await reader.read(1 << 18):
            self._spoil(untrusted_data)
            await asyncio.get_running_loop().sock_sendall(daemon, untrusted_data)
        daemon.shutdown(socket.SHUT_WR)

    def _spoil(self, untrusted_data: bytes) -> None:
        if self._flaw == "fragile" and b"service_and_arg=+" in untrusted_data:
            self._daemon.terminate()
            os._exit(3)
        if self._flaw == "trusting" and b"\r" in untrusted_data:
            sys.stderr.buffer.write(b"INFO: asked for " + untrusted_data + b"\n")
            sys.stderr.flush()
        if self._flaw == "leaking" and b"just_evaluate" in untrusted_data:
            os.dup(0)


async def tell_of_once(path: Path, known: list[bytes], reader: StreamReader, writer: StreamWriter) -> None:
    """A qubesd that never changes."""
    with closing(writer):
        request = await reader.read()
        if not known:
            with short_path(path) as name:
                answers, requests = await asyncio.open_unix_connection(name)
            with closing(requests):
                requests.write(request)
                requests.write_eof()
                known.append(await answers.read())
        writer.write(known[0])


async def serve(flaw: str, options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    places = options.eval_socket_path, options.gui_socket_path, options.socket_path
    qubesd, directories = options.qubesd_socket_path, options.policy_path
    if flaw == "old-state":
        kept = qubesd.with_name(qubesd.name + BEHIND)
        with short_path(kept) as name:
            await asyncio.start_unix_server(partial(tell_of_once, qubesd, []), name)
        qubesd = kept
    if flaw == "old-policy":
        directories = [shutil.copytree(directory, directory + BEHIND) for directory in directories]
    names = "--eval-socket-path", "--gui-socket-path", "--socket-path"
    daemon = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker.deciding.daemon", "--agent-path", str(options.agent_path)),
        *(f"{option}={place}{BEHIND}" for option, place in zip(names, places, strict=True)),
        *(f"--policy-path={directory}" for directory in directories),
        f"--qubesd-socket-path={qubesd}",
    )
    while not Path(f"{options.socket_path}{BEHIND}").exists():
        await asyncio.sleep(0.02)
    relay = Relay(flaw, daemon)
    for place in places:
        await relay.listen(place, Path(f"{place}{BEHIND}"))
    await stop.wait()
    daemon.terminate()
    await daemon.wait()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], parser().parse_args(sys.argv[2:])))
