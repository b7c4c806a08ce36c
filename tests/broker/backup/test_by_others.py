"""An archive that ``tar``, ``gzip`` and ``scrypt`` have made, in the way of the stock tools; nothing of ours
had a hand in it but the ``qubes.xml`` (``spec/backup.md`` 3)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from broker.backup.archive import Archive
from broker.backup.home import restore_home
from broker.backup.verify import verify
from qubesd.backup.processes import Processes
from tests.broker.backup.forge import store
from tests.broker.backup.homes import nothing, snapshot
from tests.qubesd.backup.by_hand import needs_scrypt

pytestmark = needs_scrypt

PASSPHRASE = "grün und blau"
ID = "20260131T120000-4711"
HEADER = f"""\
version=4
encrypted=True
compressed=True
compression-filter=gzip
hmac-algorithm=scrypt
backup-id={ID}
"""


def made_by(*words: str | Path, told: bytes = b"") -> bytes:
    return subprocess.run(words, input=told, capture_output=True, check=True).stdout


def sealed(place: Path, passphrase: str) -> bytes:
    words = ("scrypt", "enc", "-P", "--logN", "12", "-r", "8", "-p", "2", place)
    return made_by(*words, told=f"{passphrase}{PASSPHRASE}\n".encode())


def archive_of(folder: Path, files: Mapping[str, Path]) -> Path:
    """The archive of these files by their paths in it; ``folder`` is empty."""
    archive, members = folder / "archive", folder / "members"
    members.mkdir()
    (members / "backup-header").write_text(HEADER)
    (members / "backup-header.hmac").write_bytes(sealed(members / "backup-header", "backup-header!"))
    names = ["backup-header", "backup-header.hmac"]
    for path, place in files.items():
        rename = f"--transform=flags=rSh;s:^{place.name}:{path}:"
        inner = made_by("tar", "-Pc", "--sparse", "-C", place.parent, rename, place.name)
        (folder / "chunk").write_bytes(made_by("gzip", "-c", told=inner))
        names.append(f"{path}.000.enc")
        (members / names[-1]).parent.mkdir(exist_ok=True)
        (members / names[-1]).write_bytes(sealed(folder / "chunk", f"{ID}!{path}.000!"))
    archive.write_bytes(b"".join(made_by("tar", "-cO", "--posix", "-C", members, name) for name in names))
    return archive


def filled(image: Path) -> Path:
    """A sparse image with some data in it."""
    image.parent.mkdir()
    with image.open("wb") as file:
        for start in (0, 300_000, 700_000):
            file.seek(start)
            file.write(os.urandom(10_000))
        file.truncate(1 << 20)
    return image


def test_it_is_read_to_its_end(tmp_path: Path) -> None:
    made, place, ann = (tmp_path / name for name in ("made", "place", "ann"))
    for folder in (made, place, ann):
        folder.mkdir()
    (ann / "x").write_text("of ann")
    os.link(ann / "x", ann / "y")
    (ann / "z").symlink_to("ann/x")
    marks = {"backup-content": "1", "backup-path": "dom0-home/ann", "backup-size": "10"}
    (tmp_path / "qubes.xml").write_bytes(store({"dom0": marks}))
    work, mail = (filled(tmp_path / name / "private.img") for name in ("work", "mail"))
    files = {
        "qubes.xml": tmp_path / "qubes.xml",
        "dom0-home/ann": ann,
        "vm2/private.img": work,
        "vm3/private.img": mail,
    }
    with closing(Archive(archive_of(made, files), PASSPHRASE, Processes(), tmp_path)) as archive:
        assert list(archive.saved) == ["mail", "work"]
        verify(archive, archive.saved.values(), nothing)
        with archive.reading("vm2/private.img", 1 << 20) as reader:
            assert reader.content() == work.read_bytes()
        assert archive.home is not None
        assert snapshot(restore_home(archive, archive.home, place, nothing)) == snapshot(ann)
