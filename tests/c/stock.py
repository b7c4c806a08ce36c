"""The stock C qrexec daemon, played by a C program that is compiled here, and all that it meets in a dom0.

``stock-daemon`` is written from what the C daemon was seen to do (``spec/qrexec-daemon.md``). It tells of
each step that it takes, so that a test can judge them: above all, whether it ever had to use its fallback.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.sockets import short_path
from tests.broker.rig import PATIENCE, ROOT
from tools.installation.debian import SOCKET_SERVICES

SOURCES = Path(__file__).parent
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")

REFUSED, NOT_FOUND, FAILED = 126, 127, 125
"""Exit statuses of a call that did not come to its service."""

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def compiled(folder: Path) -> Path:
    """The program. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: 'cc' is not on the path, so nothing can play the C qrexec daemon")
    program = folder / "stock-daemon"
    subprocess.run([compiler, *FLAGS, *sorted(SOURCES.glob("*.c")), "-o", program], check=True)
    return program


@dataclass(frozen=True)
class Trace:
    """What one call did: its exit status, and each step with its words."""

    status: int
    steps: tuple[tuple[str, tuple[bytes, ...]], ...]

    def words(self, step: str) -> list[tuple[bytes, ...]]:
        """The words of each step of this name, in order."""
        return [words for name, words in self.steps if name == step]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.steps]

    @property
    def reply(self) -> bytes:
        """What the policy socket said."""
        ((reply,),) = self.words("reply")
        return reply

    @property
    def output(self) -> bytes:
        """What the service answered."""
        return b"".join(data for (data,) in self.words("output"))


def traced(status: int, output: bytes) -> Trace:
    steps = []
    for line in output.splitlines():
        step, *words = line.split(b"\t")
        steps.append((step.decode("ascii"), tuple(map(_plain, words))))
    return Trace(status, tuple(steps))


def _plain(word: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode("ascii")), word)


@dataclass(frozen=True)
class Stock:
    """The daemon, with the sockets and programs of the dom0 below ``root``."""

    program: Path
    root: Path
    client: Path | None = None
    """What reaches a qube; ``None`` for nothing, which succeeds."""

    @property
    def policy(self) -> Path:
        return self.root / "run/qubes/policy.sock"

    @property
    def services(self) -> Path:
        return self.root / "etc/qubes-rpc"

    @property
    def fallback(self) -> Path:
        return self.root / "qrexec-policy-exec"

    def command(self, *words: str | bytes) -> list[str | bytes | Path]:
        places: dict[str, Path] = {
            "-p": self.policy,
            "-f": self.fallback,
            "-q": self.root / "run/qubesd.sock",
            "-s": self.services,
        }
        if self.client is not None:
            places["-c"] = self.client
        return [self.program, *(word for place in places.items() for word in place), *words]

    def call(
        self,
        source: str,
        target: str | bytes,
        service: str | bytes,
        *options: str,
        requested: str = "",
        payload: bytes = b"",
    ) -> Trace:
        """A call from a qube to its end."""
        done = subprocess.run(
            self.command(*options, "--", source, requested, target, service),
            input=payload,
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        return traced(done.returncode, done.stdout)

    def ask(self, questions: Sequence[tuple[str, str, str, str]], *options: str) -> Trace:
        """Source, requested source, target and service of each question; nothing is carried out. A character
        stands for the byte of its number; tab, line end and NUL cannot be asked so."""
        done = subprocess.run(
            self.command(*options),
            input="".join("\t".join(words) + "\n" for words in questions).encode("latin-1"),
            stdout=subprocess.PIPE,
            timeout=2 * PATIENCE,
            check=False,
        )
        return traced(done.returncode, done.stdout)

    def install_fallback(self, *options: str) -> None:
        """Our ``qrexec-policy-exec`` as the fallback, with options of this dom0 and with these."""
        places = {
            "--socket-path": self.policy,
            "--qubesd-socket-path": self.root / "run/qubesd.sock",
            "--qubesd-internal-socket-path": self.root / "run/qubesd.internal.sock",
            "--agent-path": self.services,
        }
        command = [sys.executable, "-m", "broker.deciding.fallback"]
        command += [f"{option}={path}" for option, path in places.items()]
        self.install(shlex.join([*command, *options]) + ' "$@"')

    def install(self, command: str) -> None:
        """A line of shell as the fallback."""
        script(self.fallback, f"cd {shlex.quote(str(ROOT))} && exec {command}")

    def install_services(self, *services: str) -> None:
        """Services of dom0 that are qubesd's, as an installation has them."""
        for service in services:
            leads = SOCKET_SERVICES[service].relative_to("/var")
            (self.services / service).symlink_to(self.root / leads)


def script(path: Path, command: str) -> None:
    path.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    path.chmod(0o755)


def leave_stale(path: Path) -> None:
    """A socket that nobody listens on, as a killed daemon leaves it."""
    with socket.socket(socket.AF_UNIX) as gone, short_path(path) as name:
        gone.bind(name)
