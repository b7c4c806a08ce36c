"""The agent as a program of its own, and a daemon's end of its socket."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.broker.prompts.agent_rig import LIMIT

ROOT = Path(__file__).parents[3]
MAIN = "broker.prompts.main"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}


class Call:
    """A message to the agent, and its answer when it comes."""

    def __init__(self, path: Path, message: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(LIMIT)
        self._socket.connect(str(path))
        self._socket.sendall(message)
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self) -> bytes:
        """Waits for it."""
        with self._socket:
            return b"".join(iter(lambda: self._socket.recv(4096), b""))

    def answered(self) -> bool:
        """Whether it, or the end, has come."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def hang_up(self) -> None:
        self._socket.close()


class Typist:
    """Someone at the terminal that an agent runs in; ``screen`` is all that was written on it."""

    def __init__(self, folder: Path, *options: str, term: str = "dumb") -> None:
        self.path = folder / "agent.sock"
        self.screen = ""
        self._terminal, end = pty.openpty()
        termios.tcsetwinsize(end, (24, 80))
        self._modes = termios.tcgetattr(end)
        command = [sys.executable, "-m", MAIN, "--tty", f"--socket-path={self.path}", *options]
        self.agent = subprocess.Popen(
            command,
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
            env=environment(TERM=term, NO_COLOR=""),
        )
        self._end: int | None = end

    def ask(self, message: bytes) -> Call:
        self.sees("Ctrl-C ends this.")
        return Call(self.path, message)

    def types(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def sees(self, text: str, times: int = 1) -> str:
        """Wait until the screen has this text so many times; gives the screen."""
        deadline = time.monotonic() + LIMIT
        while self.screen.count(text) < times:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, left))
            assert ready, f"{text!r} never came: {self.screen!r}"
            self.screen += os.read(self._terminal, 65_536).decode("ascii")
        return self.screen

    def ends(self) -> int:
        """The exit status, when it comes; the terminal is then as it was."""
        status = self.agent.wait(LIMIT)
        if self._end is not None:
            assert termios.tcgetattr(self._end) == self._modes
        return status

    def leaves(self) -> None:
        """Close the terminal's window."""
        for descriptor in {self._terminal, self._end} - {None}:
            assert descriptor is not None
            os.close(descriptor)
        self._terminal, self._end = -1, None
        # The terminal is the agent's own, but nobody's controlling one here, so the kernel tells nobody.
        self.agent.send_signal(signal.SIGHUP)

    def close(self) -> None:
        self.agent.kill()
        self.agent.wait()
        for descriptor in (self._terminal, self._end):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)


@contextmanager
def typist(folder: Path, *options: str, term: str = "dumb") -> Iterator[Typist]:
    found = Typist(folder, *options, term=term)
    try:
        yield found
    finally:
        found.close()
