"""A process whose calls to the kernel about files can be seen, made to fail, or be its last.

The kernel holds each of them until the supervisor here says what becomes of it (seccomp user notification),
so a fault falls where it is wanted, in an unchanged program, on a real disk.
"""

from __future__ import annotations

import fcntl
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

LAUNCH = Path(__file__).with_name("launch.py")

_BY_PATH, _BY_PATHS, _BY_FOLDER, _BY_FOLDERS, _BY_DESCRIPTOR, _BY_SECOND = range(6)
"""Where a call's paths are: arguments 0, or 0 and 1; with a folder's descriptor before each; or an open file
as argument 0, or 2."""

_CALLS: Mapping[int, tuple[str, int]] = {
    1: ("write", _BY_DESCRIPTOR),
    16: ("ioctl", _BY_DESCRIPTOR),
    18: ("pwrite64", _BY_DESCRIPTOR),
    20: ("writev", _BY_DESCRIPTOR),
    40: ("sendfile", _BY_DESCRIPTOR),
    74: ("fsync", _BY_DESCRIPTOR),
    75: ("fdatasync", _BY_DESCRIPTOR),
    77: ("ftruncate", _BY_DESCRIPTOR),
    82: ("rename", _BY_PATHS),
    83: ("mkdir", _BY_PATH),
    84: ("rmdir", _BY_PATH),
    86: ("link", _BY_PATHS),
    87: ("unlink", _BY_PATH),
    91: ("fchmod", _BY_DESCRIPTOR),
    257: ("open", _BY_FOLDER),
    258: ("mkdir", _BY_FOLDER),
    263: ("unlink", _BY_FOLDER),
    264: ("rename", _BY_FOLDERS),
    265: ("link", _BY_FOLDERS),
    285: ("fallocate", _BY_DESCRIPTOR),
    316: ("rename", _BY_FOLDERS),
    326: ("copy_file_range", _BY_SECOND),
}
"""Of x86-64: number, name, and where its paths are."""

_NOTICE = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_RECEIVE = 3 << 30 | _NOTICE.size << 16 | ord("!") << 8
_SEND = 3 << 30 | _RESPONSE.size << 16 | ord("!") << 8 | 1
_GO_ON = 1
_HERE = -100
_LONGEST_PATH = 4096
_CREATE = 0o100
_FICLONE = 0x40049409


@dataclass(frozen=True, slots=True)
class Touch:
    """One call about files: its name and the paths it is about, the one that changes last."""

    call: str
    paths: tuple[Path, ...]
    creates: bool = False
    """Whether it is an open that makes the file where it is not there."""

    def __str__(self) -> str:
        return f"{self.call} {' '.join(path.name for path in self.paths)}"


Judge = Callable[[Touch], int]
"""What becomes of a call: 0 lets it go on, an error number makes it fail, ``KILL`` ends the process."""

KILL = -1


class Supervisor:
    """Decides on the calls of one process, and of all that it starts, about files below a folder."""

    def __init__(self, listener: int, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._listener = listener
        self._process = process
        self._folder = folder
        self._judge: Judge = lambda touch: 0
        self._trace: list[Touch] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @contextmanager
    def judging(self, judge: Judge = lambda touch: 0) -> Iterator[list[Touch]]:
        """Have ``judge`` decide meanwhile; yields the calls as they come."""
        before = self._judge
        trace: list[Touch] = []
        self._trace = trace
        self._judge = judge
        try:
            yield trace
        finally:
            self._judge = before
            self._trace = []

    def join(self) -> None:
        """Return when nothing is left to supervise."""
        self._thread.join()

    def _serve(self) -> None:
        events = select.poll()
        events.register(self._listener, select.POLLIN)
        while not any(event & select.POLLHUP for _, event in events.poll()):
            notice = bytearray(_NOTICE.size)
            try:
                fcntl.ioctl(self._listener, _RECEIVE, notice)
            except OSError:  # the one that asked was killed meanwhile
                continue
            asked, pid, _, number, _, _, *arguments = _NOTICE.unpack(notice)
            verdict = self._decide(pid, number, arguments)
            if verdict == KILL:
                self._process.send_signal(signal.SIGKILL)
                continue
            response = _RESPONSE.pack(asked, 0, -verdict, 0 if verdict else _GO_ON)
            try:
                fcntl.ioctl(self._listener, _SEND, response)
            except OSError:
                continue
        os.close(self._listener)

    def _decide(self, pid: int, number: int, arguments: Sequence[int]) -> int:
        name, where = _CALLS[number]
        if name == "ioctl" and arguments[1] & 0xFFFFFFFF != _FICLONE:
            return 0
        try:
            paths = tuple(_paths(pid, where, arguments))
        except OSError:  # it has gone, or gave something that is no path
            return 0
        if not any(path.is_relative_to(self._folder) for path in paths):
            return 0
        touch = Touch(name, paths, name == "open" and bool(arguments[2] & _CREATE))
        self._trace.append(touch)
        return self._judge(touch)


def _paths(pid: int, where: int, arguments: Sequence[int]) -> Iterator[Path]:
    if where in (_BY_DESCRIPTOR, _BY_SECOND):
        yield _opened(pid, arguments[2 if where == _BY_SECOND else 0])
    elif where in (_BY_PATH, _BY_PATHS):
        for address in arguments[: 2 if where == _BY_PATHS else 1]:
            yield _named(pid, _HERE, address)
    else:
        for position in (0, 2) if where == _BY_FOLDERS else (0,):
            yield _named(pid, arguments[position], arguments[position + 1])


def _named(pid: int, folder: int, address: int) -> Path:
    """The path that stands in a process's memory, from the folder that it starts in."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        name = os.fsdecode(memory.read(_LONGEST_PATH).partition(b"\0")[0])
    if name.startswith("/"):
        return Path(name)
    start = f"/proc/{pid}/cwd" if folder & 0xFFFFFFFF == _HERE & 0xFFFFFFFF else f"/proc/{pid}/fd/{folder}"
    return Path(os.readlink(start)) / name


def _opened(pid: int, descriptor: int) -> Path:
    return Path(os.readlink(f"/proc/{pid}/fd/{descriptor & 0xFFFFFFFF}"))


@contextmanager
def supervised(
    command: Sequence[str], folder: Path, log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Supervisor]]:
    """Run a command under a supervisor of what it does below ``folder``; its messages go to ``log``. It is
    killed at the end where it still runs. Skips where the kernel cannot do that."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip(
            "faults of the disk need seccomp, of which only the numbers of x86-64 Linux are known here"
        )
    ours, theirs = socket.socketpair()
    with ours, log.open("ab") as messages:
        with theirs:
            numbers = ",".join(map(str, _CALLS))
            process = subprocess.Popen(
                [sys.executable, LAUNCH, str(theirs.fileno()), numbers, *command],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=messages,
            )
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        process.wait()
        pytest.skip(f"faults of the disk need seccomp user notification: {log.read_text()}")
    supervisor = Supervisor(descriptors[0], process, folder)
    try:
        yield process, supervisor
    finally:
        process.kill()
        process.wait()
        supervisor.join()
