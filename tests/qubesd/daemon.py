"""A real daemon of its own for one test: another process, its own directory, its own embedded hypervisor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 60
"""Seconds that a daemon may take to start or to stop, on a machine with much else to do."""


@contextmanager
def running_daemon(root: Path) -> Iterator[Path]:
    """The public socket of a daemon that serves an empty system below ``root``, and ends it cleanly."""
    root.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as news, (root / "log").open("wb") as log:
        news.bind(str(root / "n"))
        news.settimeout(1)
        daemon = subprocess.Popen(
            [sys.executable, "-m", "broker.daemon", "--root", str(root)],
            env={**os.environ, "NOTIFY_SOCKET": str(root / "n")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_until_ready(daemon, news, root / "log")
            yield root / "run/qubesd.sock"
        finally:
            daemon.terminate()
            status = daemon.wait(PATIENCE)
        assert status == 0, (root / "log").read_text()


def _wait_until_ready(daemon: subprocess.Popen[bytes], news: socket.socket, log: Path) -> None:
    for _ in range(PATIENCE):
        try:
            if b"READY=1" in news.recv(4096):
                return
        except TimeoutError:
            assert daemon.poll() is None, log.read_text()
    raise AssertionError(f"the daemon did not start within {PATIENCE} seconds: {log.read_text()}")
