"""Homes in archives, as somebody makes them who means no good, and what was unpacked of one."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from broker.backup.archive import Archive, SavedHome
from broker.backup.home import check_home, restore_home
from qubesd.backup.processes import Processes
from tests.broker.backup.forge import PASSPHRASE, Member, good, of_file, of_store, store, written

HOME = "dom0-home/ann"


def entry(
    name: str, content: bytes = b"", form: Literal[1, 2] = tarfile.PAX_FORMAT, **fields: object
) -> bytes:
    """A member of a home, without the end of an archive; ``fields`` of its header, right or wrong."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(form) + content + bytes(-len(content) % 512)


def folder(name: str, mode: int = 0o755) -> bytes:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> bytes:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def link(name: str, target: str) -> bytes:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def older_sparse(name: str, size: int, extents: list[tuple[int, int]], data: bytes) -> bytes:
    """A sparse file of the older form, with any list of at most four pieces."""
    head = bytearray(entry(name, type=tarfile.GNUTYPE_SPARSE, size=len(data))[:512])
    head[257:265] = b"ustar  \0"
    listed = b"".join(b"%011o\0%011o\0" % extent for extent in extents)
    head[345:500] = (bytes(41) + listed).ljust(138, b"\0") + b"%011o\0" % size + bytes(5)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data + bytes(-len(data) % 512)


def home(*entries: bytes) -> bytes:
    """The inner archive of ann's home with these in it."""
    return b"".join((folder(HOME), *entries, bytes(1024)))


def with_home(content: bytes, **marks: str) -> list[Member]:
    """A whole archive that has this as the inner archive of ann's home; ``marks`` are features of dom0."""
    features = {"backup-content": "1", "backup-path": HOME, "backup-size": "4096"}
    features.update({f"backup-{key}": value for key, value in marks.items()})
    members = good()
    members[2] = of_store(store({"dom0": features}))
    return [*members, of_file(HOME, content)]


@contextmanager
def opened(place: Path) -> Iterator[tuple[Archive, SavedHome]]:
    """An archive, and the home in it."""
    with closing(Archive(place, PASSPHRASE, Processes())) as archive:
        assert archive.home is not None
        yield archive, archive.home


def nothing(_: int) -> None:
    """Nobody counts."""


def unpacked(content: bytes, place: Path, count: Callable[[int], None] = nothing) -> Path:
    """A home that was found good and restored into a new folder of ``place``."""
    with opened(written(place.parent / "archive", with_home(content))) as (archive, saved):
        check_home(archive, saved, nothing)
        return restore_home(archive, saved, place, count)


def snapshot(top: Path) -> dict[bytes, tuple[object, ...]]:
    """All that is below a folder by its path: kind, mode, seconds, and content, target or how many names."""
    found: dict[bytes, tuple[object, ...]] = {}
    for above, folders, names in os.walk(os.fsencode(top)):
        for name in (*folders, *names):
            path = os.path.join(above, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = (Path(os.fsdecode(path)).read_bytes(), status.st_nlink)
            kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
            found[path.removeprefix(os.fsencode(top))] = (kind, mode, int(status.st_mtime), content)
    return found
