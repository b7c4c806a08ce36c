"""The daemon that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

DAEMON = (sys.executable, "-m", "broker.daemon")

PATIENCE = 60.0
"""Seconds that a daemon may take to start or to stop, on a machine with much else to do."""


class Subject:
    """A daemon below ``root``, one process after another; ``process`` is ``None`` between two of them.

    ``command`` is the daemon's, without its options.
    """

    def __init__(self, root: Path, command: Sequence[str] = DAEMON) -> None:
        self.root = root
        self._command = command
        self.socket = root / "run/qubesd.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start a process; it does not answer yet."""
        self.root.mkdir(exist_ok=True)
        # Whether the socket is there tells whether this process got so far.
        self.socket.unlink(missing_ok=True)
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*self._command, "--root", str(self.root)],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    def ready(self) -> bool:
        """Wait until it answers; false where it ended or never does."""
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """End it at once; nothing where none runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Have it end in order. Raises ``TimeoutExpired`` where it does not."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self.process = None

    def log(self) -> str:
        """What this process has said."""
        return (self.root / "log").read_text(encoding="utf-8", errors="replace")
