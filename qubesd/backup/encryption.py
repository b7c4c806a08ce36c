"""Encryption and integrity by the ``scrypt`` program (``spec/backup.md`` 3.3).

A passphrase goes to the program over a pipe that nobody else has: a command line and an environment can be
read by others. The user's own part stands behind what the file is, so that no file passes for another.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import PIPE
from typing import IO

from qubesd.backup.processes import Process, Processes, pipe, write_all
from qubesd.errors import QubesError

OVERHEAD = 128
"""Bytes by which an encrypted file is longer: its header of 96 and its end of 32."""
_HEADER = struct.Struct(">6sBBII32s16s")
_MOST_MEMORY = 4 << 30
"""Bytes. The stock tools choose by the machine's memory and five seconds of work; more than this is an
attempt to keep the reader busy."""
_MOST_WORK = 1 << 26
_PROBE = 1 << 16
"""Bytes for which a disk has room that has not kept the program from writing."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What deriving a key takes: ``128 * 2**log_n * r`` bytes of memory, and time in proportion to that and
    to ``p``."""

    log_n: int = 17
    r: int = 8
    p: int = 1

    def words(self) -> list[str]:
        return ["--logN", str(self.log_n), "-r", str(self.r), "-p", str(self.p)]


def of_header(passphrase: str) -> bytes:
    """The passphrase of the header's authenticated copy."""
    return f"backup-header!{passphrase}".encode("utf-8", "surrogateescape")


def of_file(backup_id: str, name: str, passphrase: str) -> bytes:
    """The passphrase of a file; its name is the member's without ``.enc``."""
    return f"{backup_id}!{name}!{passphrase}".encode("utf-8", "surrogateescape")


@contextmanager
def encrypting(processes: Processes, passphrase: bytes, output: IO[bytes], cost: Cost) -> Iterator[int]:
    """A descriptor to write to; what was written is in the file ``output``, encrypted, after this.

    Raises:
        QubesError: the program is missing or fails.
        OSError: the file cannot be written.
    """
    with pipe() as (reader, writer):
        words = ["scrypt", "enc", "-P", *cost.words(), f"/dev/fd/{reader.fileno()}"]
        with processes.running(words, PIPE, output, (reader.fileno(),)) as process:
            reader.close()
            process.tell(passphrase + b"\n")
            early = False
            try:
                yield writer.fileno()
            except BrokenPipeError:
                early = True
            writer.close()
            _finish(process, output)
            if early:
                raise QubesError("scrypt ended before it had read everything")


def decrypt(processes: Processes, passphrase: bytes, source: IO[bytes], output: IO[bytes]) -> None:
    """Decrypt a whole file. What is in ``output`` is authentic when this returns, and not before.

    Raises:
        QubesError: it was changed, the passphrase is another, or it wants too much of this machine.
        OSError: ``output`` cannot be written.
    """
    source.seek(0)
    check_cost(source.read(_HEADER.size))
    source.seek(0)
    words = ["scrypt", "dec", "-f", "-P", f"/dev/fd/{source.fileno()}"]
    with processes.running(words, PIPE, output, (source.fileno(),)) as process:
        process.tell(passphrase + b"\n")
        _finish(process, output)


def _finish(process: Process, output: IO[bytes]) -> None:
    """Wait for its end. Where it failed because it could not write, that is an ``OSError``."""
    try:
        process.finish()
    except QubesError:
        # It tells in words alone why; the disk is asked again.
        write_all(output.fileno(), bytes(_PROBE))
        raise


def check_cost(untrusted_header: bytes) -> None:
    """Look at what deriving the key would take, before it is derived; ``QubesError`` where it is too much."""
    if len(untrusted_header) < _HEADER.size:
        raise QubesError("cut short")
    magic, version, log_n, r, p, _, check = _HEADER.unpack(untrusted_header)
    if magic != b"scrypt" or version != 0:
        raise QubesError("not encrypted by scrypt")
    if hashlib.sha256(untrusted_header[:48]).digest()[:16] != check:
        raise QubesError("damaged: its first bytes are not as they were written")
    if not (1 <= log_n <= 40 and r and p and _fits(1 << log_n, r, p)):
        raise QubesError(f"asks for too much work (N=2^{log_n}, r={r}, p={p}); nobody's backup does")


def _fits(n: int, r: int, p: int) -> bool:
    return 128 * n * r <= _MOST_MEMORY and 128 * r * p <= _MOST_MEMORY and n * r * p <= _MOST_WORK
