"""Archives as somebody makes them who means no good: of any members, with the passphrase or without; and how
one is read to its end."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from broker.backup.archive import Archive
from broker.backup.verify import verify, verify_others
from qubesd.backup.processes import Processes
from qubesd.model.state import Klass, Label, PoolConfig, Qube, System, VolumeConfig
from qubesd.store.xml import dump
from tests.qubesd.backup.rig import children

PASSPHRASE = "correct horse"
ID = "20260131T120000-7"
SIZE = 1 << 20


class Member(NamedTuple):
    """A member of the outer layer."""

    name: str
    content: bytes
    type: bytes = tarfile.REGTYPE
    linkname: str = ""

    def dump(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.size, info.type, info.linkname = len(self.content), self.type, self.linkname
        padding = bytes(-len(self.content) % 512 + 1024)
        return info.tobuf(tarfile.GNU_FORMAT) + self.content + padding


def written(place: Path, members: Iterable[Member]) -> Path:
    place.write_bytes(b"".join(member.dump() for member in members))
    return place


@cache
def sealed(passphrase: str, content: bytes) -> bytes:
    """What ``scrypt`` makes of it, at the least cost."""
    words = ["scrypt", "enc", "-P", "--logN", "10", "-r", "1", "-p", "1"]
    with NamedTemporaryFile() as plain:
        plain.write(content)
        plain.flush()
        done = subprocess.run(
            [*words, plain.name], input=passphrase.encode() + b"\n", capture_output=True, check=True
        )
    return done.stdout


def of_header(content: bytes | None = None, /, **changed: str) -> list[Member]:
    """The first two members; ``changed`` lines of the header, or all of it."""
    values = {
        "version": "4",
        "encrypted": "True",
        "compressed": "True",
        "compression-filter": "gzip",
        "hmac-algorithm": "scrypt",
        "backup-id": ID,
        **changed,
    }
    text = content or "".join(f"{key}={value}\n" for key, value in values.items()).encode("ascii")
    hmac = sealed(f"backup-header!{PASSPHRASE}", text)
    return [Member("backup-header", text), Member("backup-header.hmac", hmac)]


def chunk(name: str, content: bytes, backup_id: str = ID) -> Member:
    """A chunk with this in it as it is, such as ``vm2/private.img.000``."""
    return Member(f"{name}.enc", sealed(f"{backup_id}!{name}!{PASSPHRASE}", content))


def of_file(path: str, inner: bytes, backup_id: str = ID) -> Member:
    """A file whose inner archive is this."""
    return chunk(f"{path}.000", gzip.compress(inner, 1), backup_id)


def inner(name: str, content: bytes = b"", **fields: object) -> bytes:
    """A tar archive of one member."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512 + 1024)


def sparse(name: str, size: int, listed: bytes, data: bytes, **records: str) -> bytes:
    """A sparse file of this size with any list of its data."""
    info = tarfile.TarInfo("vm2/GNUSparseFile.1/x")
    content = listed + bytes(-len(listed) % 512) + data
    info.size = len(content)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
        **records,
    }
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512 + 1024)


def store(content: Mapping[str, Mapping[str, str]] | None = None, *more: Qube) -> bytes:
    """The store of a system with the qubes ``work`` (2), ``mail`` (3) and more; ``content`` are features."""
    uuid, marks = "00000000-0000-0000-0000-000000000000", (content or {}).get("dom0", {})
    dom0 = Qube("dom0", 0, uuid, Klass.ADMIN, {"label": "black"}, marks)
    system = System(
        labels={"red": Label("red", 1, "0xcc0000"), "black": Label("black", 8, "0x000000")},
        pools={"main": PoolConfig("main", "file-reflink", {"dir_path": "/var/lib/qubes"})},
    ).with_qube(dom0)
    for qid, name in ((2, "work"), (3, "mail")):
        uuid = f"00000000-0000-4000-8000-00000000000{qid}"
        private = VolumeConfig("private", "main", f"appvms/{name}/private", 1, True, True, False, SIZE)
        marks = {"backup-content": "1", "backup-path": f"vm{qid}/", "backup-size": str(SIZE)}
        qube = Qube(name, qid, uuid, Klass.STANDALONE, {"label": "red"}, marks, volumes={"private": private})
        system = system.with_qube(replace(qube, features={**marks, **(content or {}).get(name, {})}))
    for qube in more:
        system = system.with_qube(qube)
    return dump(system)


def of_store(data: bytes | None = None) -> Member:
    return of_file("qubes.xml", inner("qubes.xml", data or store()))


def image(qid: int, byte: bytes = b"x") -> Member:
    """The image of a qube, all of one byte."""
    path = f"vm{qid}/private.img"
    return of_file(path, inner(path, byte * SIZE))


def good() -> list[Member]:
    """A whole archive of two qubes."""
    return [
        *of_header(),
        of_store(),
        image(2),
        of_file("vm2/notes.txt", inner("vm2/notes.txt", b"n")),
        image(3),
    ]


def tar_of(*members: bytes) -> bytes:
    """Inner archives, one after the other."""
    made = io.BytesIO()
    for member in members:
        made.write(member)
    return made.getvalue()


def costly(log_n: int, r: int, p: int) -> bytes:
    """The beginning of an encrypted file, right but for what it asks for."""
    head = struct.pack(">6sBBII32s", b"scrypt", 0, log_n, r, p, bytes(32))
    return head + hashlib.sha256(head).digest()[:16] + bytes(200)


def read(place: Path, passphrase: str = PASSPHRASE) -> list[str]:
    """The qubes of an archive that was read to its end, with nothing left behind."""
    spool = place.parent / "spool"
    spool.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    try:
        with closing(Archive(place, passphrase, Processes(), spool)) as archive:
            verify(archive, archive.saved.values(), lambda _: None)
            verify_others(archive, lambda _: None)
            return list(archive.saved)
    finally:
        assert os.listdir(spool) == []
        assert len(os.listdir("/proc/self/fd")) == before
        assert children() == []
