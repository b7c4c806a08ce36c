"""An archive of a backup, opened with its passphrase: what it holds, and each file of it.

Each chunk is decrypted whole, and so known to be what was written there, before anything looks at it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from tempfile import gettempdir
from typing import IO, NamedTuple

from broker.backup.inner import Reader
from broker.backup.members import Members
from broker.backup.outer import Index, Member, index
from qubesd.backup import encryption, filters, header
from qubesd.backup.aside import Aside
from qubesd.backup.home import FOLDER
from qubesd.backup.processes import Processes, pipe, producing, write_all
from qubesd.core.backup_content import CONTENT, PATH, SIZE
from qubesd.core.backup_files import EMPTY, MOST, OWN, may_be_added
from qubesd.errors import QubesError, StorageError, StoreError
from qubesd.model.state import DOM0, Klass, Qube, System
from qubesd.store.xml import load

_MOST_QUBES = 64 << 20
"""Bytes of qubes.xml."""
_MOST_IMAGE = 1 << 50
_QUBE_PATH = re.compile(r"vm[0-9]{1,5}/", re.ASCII)
_HOME_PATH = re.compile(rf"{FOLDER}/([A-Za-z0-9_.-]{{1,64}})", re.ASCII)
_IMAGE = ".img"


class Saved(NamedTuple):
    """A qube in the archive.

    Attributes:
        path: its folder there.
        images: the paths of its images by the names of the volumes.
        files: the paths of its small files by their names.
        added: those of the files that extensions added.
        size: what it took on the disk when it was saved, in bytes.
    """

    qube: Qube
    path: str
    images: dict[str, str]
    files: dict[str, str]
    added: dict[str, str]
    size: int

    def paths(self) -> Iterator[str]:
        """All that is in the archive of it."""
        yield from self.images.values()
        yield from self.small_files()

    def small_files(self) -> Iterator[str]:
        yield from self.files.values()
        yield from self.added.values()


class SavedHome(NamedTuple):
    """dom0's home in the archive: its path there, whose it was, and the bytes that it took on the disk."""

    path: str
    user: str
    size: int


class Archive:
    """One archive. Every method blocks.

    Attributes:
        saved: the qubes in it by name; dom0 is not among them.
        home: dom0's; ``None`` where it was not saved.
        system: all that was there, also what was not saved.
        other: the paths of what is in it for none of these.
    """

    def __init__(self, place: Path, passphrase: str, processes: Processes, spool: Path | None = None) -> None:
        """Open the archive and find out what it holds.

        Args:
            spool: the folder in which a chunk is put aside; ``None`` for the system's.

        Raises:
            QubesError: it is damaged, or none, or the passphrase is another.
            OSError: it cannot be read.
        """
        self.place = place
        self._passphrase = passphrase
        self._processes = processes
        self._aside = Aside(spool or Path(gettempdir()), "a piece of the archive", StorageError)
        self._file = open(place, "rb")  # noqa: SIM115
        try:
            self._index: Index = index(self._file, place)
            self.header = self._authentic_header()
            with self.reading(header.QUBES, _MOST_QUBES) as reader:
                content = reader.content()
            self.system: System = _system(content)
            self.home = self._home()
            self.saved, self.other = self._contents()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def size_of(self, path: str) -> int:
        """The bytes that a file takes in the archive."""
        return sum(chunk.size for chunk in self._index.files[path])

    def image(self, saved: Saved, volume: str) -> tuple[str, int]:
        """The path of an image, and the bytes that it may have: the volume may have grown since its size was
        noted."""
        size = saved.qube.volumes[volume].size
        return saved.images[volume], 2 * size if size else _MOST_IMAGE

    def small(self, path: str) -> bytes:
        """The content of a small file."""
        with self.reading(path, MOST) as reader:
            return reader.content()

    @contextmanager
    def reading(self, path: str, most: int) -> Iterator[Reader]:
        """The file at the path, of at most so many bytes. What was read counts when the end was reached.

        Raises:
            QubesError: it is damaged, moved, or not what it should be.
        """
        with self.stream(path) as stream:
            yield Reader(stream, path, most, self.size_of(path))

    @contextmanager
    def members(self, path: str) -> Iterator[Members]:
        """What is in the file at the path, where that is more than one. It counts when the end was reached.

        Raises:
            QubesError: it is damaged, moved, or not what it should be.
        """
        with self.stream(path) as stream:
            yield Members(stream, path, self.size_of(path))

    @contextmanager
    def stream(self, path: str) -> Iterator[IO[bytes]]:
        """The inner archive of the file, decompressed."""

        def decrypted(target: int) -> None:
            for chunk in self._index.files[path]:
                self._decrypt(chunk, target)

        if self.header.compression is None:
            with pipe() as (reader, writer), producing(decrypted, writer, reader), self._interruptible():
                yield reader
            return
        words = filters.decompress(self.header.compression)
        with self._processes.running(words, PIPE, PIPE) as process:
            source, target = process.popen.stdout, process.popen.stdin
            assert source is not None
            assert target is not None
            with producing(decrypted, target, source), self._interruptible():
                yield source
            process.finish()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """End every program where whoever reads is interrupted: a key may take a minute to be derived."""
        try:
            yield
        except KeyboardInterrupt:
            self._processes.cancel()
            raise

    def _authentic_header(self) -> header.Header:
        """The header, which is parsed when it is known to be what was written."""
        key = encryption.of_header(self._passphrase)
        plain = self._bytes(self._index.header)
        try:
            with self._decrypted(self._index.hmac, key) as out:
                authentic = out.read(header.LONGEST + 1)
        except StorageError:
            raise
        except QubesError as error:
            raise QubesError(f"{self.place}: wrong passphrase, or a damaged header: {error}") from error
        if authentic != plain:
            raise QubesError(f"{self.place}: the header was changed")
        try:
            return header.parse(authentic)
        except QubesError as error:
            raise QubesError(f"{self.place}: {error}") from error

    def _decrypt(self, chunk: Member, target: int) -> None:
        name = chunk.name.removesuffix(header.ENCRYPTED)
        key = encryption.of_file(self.header.backup_id, name, self._passphrase)
        try:
            with self._decrypted(chunk, key) as out:
                self._processes.copy(out.fileno(), target)
        except StorageError:
            raise
        except QubesError as error:
            raise QubesError(f"{chunk.name!r} is damaged, or another stands in its place: {error}") from error

    @contextmanager
    def _decrypted(self, member: Member, key: bytes) -> Iterator[IO[bytes]]:
        """The content of a member, in a file by itself. ``StorageError`` where there is no room for it."""
        with self._aside.file() as out:
            with self._aside.file() as sealed:
                self._copy(member, sealed)
                with self._aside.writing():
                    encryption.decrypt(self._processes, key, sealed, out)
            out.seek(0)
            yield out

    def _home(self) -> SavedHome | None:
        qube = self.system.qubes.get(DOM0)
        if qube is None or not qube.features.get(CONTENT):
            return None
        path = qube.features.get(PATH, "")
        match = _HOME_PATH.fullmatch(path)
        if match is None or path not in self._index.files:
            raise QubesError(f"{self.place}: the home of dom0 is missing; it was cut short")
        return SavedHome(path, match[1], _size(qube))

    def _contents(self) -> tuple[dict[str, Saved], list[str]]:
        """The qubes that qubes.xml says are in it, each with its files, all of which must be there."""
        told = {header.QUBES} if self.home is None else {header.QUBES, self.home.path}
        paths = [path for path in self._index.files if path not in told]
        inside: dict[str, list[str]] = {}
        for path in paths:
            inside.setdefault("".join(path.partition("/")[:2]), []).append(path)
        saved: dict[str, Saved] = {}
        known: set[str] = set()
        for qube in self.system.in_order():
            path = qube.features.get(PATH, "")
            if not qube.features.get(CONTENT) or qube.klass is Klass.ADMIN:
                continue
            if not _QUBE_PATH.fullmatch(path) or path in known:
                raise QubesError(f"{self.place}: qube {qube.name!r} has no place of its own in it")
            known.add(path)
            saved[qube.name] = self._saved(qube, path, inside.get(path, []))
        taken = {path for one in saved.values() for path in one.paths()}
        return saved, [path for path in paths if path not in taken]

    def _saved(self, qube: Qube, path: str, paths: list[str]) -> Saved:
        images: dict[str, str] = {}
        files: dict[str, str] = {}
        added: dict[str, str] = {}
        for one in paths:
            name = one.removeprefix(path)
            if name.endswith(_IMAGE) and name.removesuffix(_IMAGE) in qube.volumes:
                images[name.removesuffix(_IMAGE)] = one
            elif name in (*OWN, EMPTY):
                files[name] = one
            elif may_be_added(name):
                added[name] = one
        kept = {volume.name for volume in qube.volumes.values() if volume.save_on_stop}
        if kept != images.keys() or not paths:
            raise QubesError(f"{self.place}: something of qube {qube.name!r} is missing; it was cut short")
        return Saved(qube, path, images, files, added, _size(qube))

    def _bytes(self, member: Member) -> bytes:
        self._file.seek(member.offset)
        return self._file.read(member.size)

    def _copy(self, member: Member, target: IO[bytes]) -> None:
        self._file.seek(member.offset)
        left = member.size
        while left:
            self._processes.check()
            piece = self._file.read(min(1 << 18, left))
            if not piece:
                raise QubesError(f"{self.place}: it became shorter while it was read")
            with self._aside.writing():
                write_all(target.fileno(), piece)
            left -= len(piece)


def _size(qube: Qube) -> int:
    """What it took on the disk, as the archive says; 0 where that cannot be read."""
    size = qube.features.get(SIZE, "")
    return int(size) if size.isdigit() and len(size) < 20 else 0


def _system(content: bytes) -> System:
    try:
        return load(content, header.QUBES)
    except StoreError as error:
        raise QubesError(f"{error}") from error
