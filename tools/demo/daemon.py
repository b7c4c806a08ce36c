"""One qubesd of our own under one directory: its policy laid out, started, waited for, stopped."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qubesd.config import Config, load

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = Path(os.environ.get("QUBESD_ROOT") or REPOSITORY / "var")
"""The daemon's directory, unless the command line names another."""
START_LIMIT = 60.0
"""Seconds until a daemon that has not said that it is ready is given up."""
STOP_LIMIT = 30.0
"""Seconds that a daemon may take to stop in order."""


class DaemonError(Exception):
    """The daemon did not start; the text says why and where to read more."""


def lay_out_policy(config: Config) -> None:
    """Put the shipped policy, with the role of an operator in force and the demo's two over it, where the
    daemon reads it.

    Does nothing where there is a policy already: it may have been edited since.
    """
    if config.policy_dir.exists():
        return
    config.policy_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=config.policy_dir.parent) as scratch:
        made = Path(scratch) / "policy.d"
        shipped = REPOSITORY / "policy.d"
        shutil.copytree(shipped, made, ignore=shutil.ignore_patterns("demo"))
        for layer in ("examples", "demo"):
            shutil.copytree(shipped / layer, made, dirs_exist_ok=True)
        made.rename(config.policy_dir)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Config]:
    """A daemon on this directory that answers, until the block ends; the block gets its paths.

    Raises:
        DaemonError: it stopped, or did not say that it is ready in time.
    """
    config = load(root)
    config.log_dir.mkdir(parents=True, exist_ok=True)
    log = config.log_dir / "qubesd.log"
    with contextlib.ExitStack() as stack:
        # The notification socket of systemd's Type=notify; an abstract name, so that no path can be too long.
        ready = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        name = f"qubesd-demo-{os.getpid()}-{os.urandom(8).hex()}"
        ready.bind(f"\0{name}")
        process = subprocess.Popen(
            [Path(sys.executable).with_name("qubesd"), "--root", root],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stack.enter_context(log.open("ab")),
            env={**os.environ, "NOTIFY_SOCKET": f"@{name}"},
        )
        stack.callback(_stop, process)
        _wait_until_ready(process, ready, log)
        yield config


def _wait_until_ready(process: subprocess.Popen[bytes], ready: socket.socket, log: Path) -> None:
    ended = os.pidfd_open(process.pid)
    said = ready.fileno()
    try:
        while True:
            awake, _, _ = select.select([said, ended], [], [], START_LIMIT)
            if said in awake:
                if b"READY=1" in ready.recv(4096).split(b"\n"):
                    return
            elif awake:
                raise DaemonError(f"qubesd stopped with status {process.wait()}:\n{_last_lines(log)}")
            else:
                raise DaemonError(f"qubesd was not ready after {START_LIMIT:.0f} s; see {log}")
    finally:
        os.close(ended)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-10:])
