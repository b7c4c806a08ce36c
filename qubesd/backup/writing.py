"""Writing an archive: file after file through a filter, in chunks, each encrypted (``spec/backup.md`` 3).

What a chunk becomes is put aside, encrypted, in a file without a name, since its size comes ahead of it. So
one chunk at a time takes place on the disk, and none in memory.
"""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import IO

from qubesd.backup import encryption, filters, header, inner
from qubesd.backup.aside import Aside
from qubesd.backup.encryption import Cost
from qubesd.backup.header import Header
from qubesd.backup.processes import Processes, Produce, pipe, producing, write_all

CHUNK = 100 << 20
"""Bytes of a chunk before it is encrypted; the last of a file has less."""


class ArchiveWriter:
    """Writes one archive to a descriptor. Every method blocks, and raises as ``Processes`` and ``OSError``.

    Args:
        spool: the folder in which the chunk at hand is put aside.
    """

    def __init__(
        self, head: Header, passphrase: str, target: int, spool: Path, processes: Processes, cost: Cost
    ) -> None:
        self._header = head
        self._passphrase = passphrase
        self._target = target
        self._aside = Aside(spool, "a piece of the backup")
        self._processes = processes
        self._cost = cost

    def begin(self) -> None:
        """Write the header and its authenticated copy."""
        data = self._header.dump()
        with self._aside.file() as plain, self._aside.file() as sealed:
            key = encryption.of_header(self._passphrase)
            with self._aside.writing():
                write_all(plain.fileno(), data)
                with encryption.encrypting(self._processes, key, sealed, self._cost) as out:
                    write_all(out, data)
            self._add(header.HEADER, plain)
            self._add(header.HMAC, sealed)

    def add_file(self, name: str, content: bytes) -> None:
        """A small file, such as ``qubes.xml`` or ``vm7/notes.txt``."""
        self.add(name, lambda out: inner.write_file(name, content, out))

    def add_image(self, name: str, image: Path, count: Callable[[int], None]) -> None:
        """An image; ``count`` is told of the bytes that were read of it."""
        self.add(name, lambda out: inner.write_image(name, image, out, self._processes, count))

    def add(self, name: str, produce: Produce) -> None:
        """Whatever ``produce`` writes, as the file of that name."""
        with self._filtered(produce) as source:
            number, full = 0, True
            while full:
                full = self._add_chunk(f"{name}.{number:03}", source) == CHUNK
                number += 1

    def _add_chunk(self, name: str, source: int) -> int:
        """Write the next chunk from the descriptor; how many bytes it had."""
        key = encryption.of_file(self._header.backup_id, name, self._passphrase)
        with self._aside.file() as sealed:
            with (
                self._aside.writing(),
                encryption.encrypting(self._processes, key, sealed, self._cost) as out,
            ):
                copied = self._processes.copy(source, out, CHUNK)
            self._add(name + header.ENCRYPTED, sealed)
        return copied

    def _add(self, name: str, content: IO[bytes]) -> None:
        """A member of the outer layer, which is an archive by itself."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = content.seek(0, 2), 0o600, int(time.time())
        content.seek(0)
        write_all(self._target, info.tobuf(tarfile.USTAR_FORMAT))
        self._processes.copy(content.fileno(), self._target)
        write_all(self._target, bytes(-info.size % inner.BLOCK + 2 * inner.BLOCK))

    @contextmanager
    def _filtered(self, produce: Produce) -> Iterator[int]:
        """A descriptor to read from what ``produce`` writes, compressed if that is so."""
        if self._header.compression is None:
            with pipe() as (reader, writer), producing(produce, writer, reader):
                yield reader.fileno()
            return
        words = filters.compress(self._header.compression)
        with self._processes.running(words, stdin=PIPE, stdout=PIPE) as process:
            source, plain = process.popen.stdout, process.popen.stdin
            assert source is not None
            assert plain is not None
            with producing(produce, plain, source):
                yield source.fileno()
            process.finish()
