"""The programs of one piece of work, which end with it, or with the word that it is not wanted any more.

All of this blocks; it runs in a thread of its own, and ``cancel`` may be called from any other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from qubesd.disk import why
from qubesd.errors import BackupCancelled, QubesError

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"LC_ALL": "C", "PATH": PATH}
_PIECE = 1 << 18
_KEPT = 4096
"""Bytes of a program's complaints that are looked at: the last."""
_MOST_WORDS = 200
"""Characters of them that are passed on."""
_SAYS_NOTHING = "due to previous errors"
"""The end of the line with which tar ends, whatever went wrong."""
_LATE = 1.0
"""Seconds that are given to what a program has started, and does not belong to it any more, to end its
complaints."""

Stream = int | IO[bytes]

Produce = Callable[[int], None]
"""Writes something to a descriptor."""


class Process:
    """A program that runs. The last that it complains of is kept, in memory: a service in a qube may complain
    without end."""

    def __init__(self, words: Sequence[str], stdin: Stream, stdout: Stream, pass_fds: Sequence[int]) -> None:
        self.name = os.path.basename(words[0])
        self._untrusted_complaint = b""
        self.popen = subprocess.Popen(
            list(words),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        self._listener = threading.Thread(target=self._listen, name="backup-complaints", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.popen.stderr is not None
        with self.popen.stderr as stream:
            while untrusted_piece := stream.read(_PIECE):
                self._untrusted_complaint = (self._untrusted_complaint + untrusted_piece)[-_KEPT:]

    def tell(self, data: bytes) -> None:
        """Write this, which fits a pipe, to its standard input and close that."""
        pipe = self.popen.stdin
        assert pipe is not None
        with suppress(BrokenPipeError):  # it ended early; how is asked for later
            pipe.write(data)
        pipe.close()

    def complaint(self) -> str:
        """Its last line on standard error that says something, fit to be shown, when it has ended; empty for
        none."""
        self._listener.join(_LATE)
        untrusted_text = self._untrusted_complaint.decode("ascii", "replace").strip()
        untrusted_lines = [line for line in untrusted_text.splitlines() if not line.endswith(_SAYS_NOTHING)]
        line = untrusted_lines[-1] if untrusted_lines else ""
        return "".join(letter if " " <= letter <= "~" else "?" for letter in line)[:_MOST_WORDS]

    def finish(self, good: Sequence[int] = (0,)) -> None:
        """Wait until it has ended by itself; ``QubesError`` with its own words where not well."""
        ended = self.ended()
        if ended.si_code != os.CLD_EXITED or ended.si_status not in good:
            raise QubesError(f"{self.name} failed: {self.complaint() or f'status {ended.si_status}'}")

    def ended(self) -> os.waitid_result:
        """Wait for its end, and leave it its number, which ``kill`` may still use."""
        ended = os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        return ended

    def kill(self) -> None:
        """End it with all that it started; until it was reaped."""
        os.killpg(self.popen.pid, signal.SIGKILL)

    def close(self) -> None:
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()
        self._listener.join(_LATE)


class Processes:
    """Starts programs until it is cancelled, which ends them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Process] = set()
        self._cancelled = False

    def check(self) -> None:
        """``BackupCancelled`` where that is so. Whoever does something long asks now and then."""
        if self._cancelled:
            raise BackupCancelled("the backup was cancelled; nothing of it is left")

    def cancel(self) -> None:
        """End every program, and let no other be started. What reads and writes their pipes ends too."""
        with self._lock:
            self._cancelled = True
            for process in self._running:
                process.kill()

    @contextmanager
    def running(
        self, words: Sequence[str], stdin: Stream, stdout: Stream, pass_fds: Sequence[int] = ()
    ) -> Iterator[Process]:
        """The program, found on the system's path, which has ended after this.

        Raises:
            BackupCancelled: that was so before it could be started, or it was ended by that.
            QubesError: it cannot be run.
        """
        with self._lock:
            self.check()
            try:
                process = Process(words, stdin, stdout, pass_fds)
            except FileNotFoundError as error:
                raise QubesError(f"{words[0]}: not installed; install it and try again") from error
            except OSError as error:
                raise QubesError(f"{words[0]}: cannot be run: {error.strerror}") from error
            self._running.add(process)
        try:
            yield process
        except (OSError, QubesError):
            self.check()
            raise
        finally:
            with self._lock:
                process.kill()
            process.ended()  # which a disk that hangs can delay; nobody is to wait for the lock so long
            with self._lock:
                process.popen.wait()
                self._running.remove(process)
            process.close()

    def copy(self, source: int, target: int, most: int | None = None) -> int:
        """Copy from one descriptor to another until the end, or ``most`` bytes; how many those were."""
        copied = 0
        while most is None or copied < most:
            self.check()
            piece = os.read(source, _PIECE if most is None else min(_PIECE, most - copied))
            if not piece:
                break
            write_all(target, piece)
            copied += len(piece)
        return copied


def write_all(target: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(target, left) :]


@contextmanager
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The reading and the writing end of a pipe, both closed after this, if not before."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        yield reader, writer


@contextmanager
def producing(produce: Produce, writer: IO[bytes], reader: IO[bytes]) -> Iterator[None]:
    """Write in another thread what is read inside. What went wrong there is raised here at the end."""
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with writer:
                produce(writer.fileno())
        except BrokenPipeError:
            pass  # whoever reads knows why it stopped
        except OSError as error:
            failures.append(QubesError(f"a file cannot be read: {why(error)}"))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write, name="backup-file", daemon=True)
    thread.start()
    try:
        yield
    except (OSError, QubesError):
        reader.close()
        thread.join()
        if failures:  # what was read came to its end too early
            raise failures[0] from None
        raise
    finally:
        # Where reading ended early, whoever still writes learns so.
        reader.close()
        thread.join()
    if failures:
        raise failures[0]
