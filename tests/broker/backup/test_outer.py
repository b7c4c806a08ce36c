"""The outer layer as others write it: each member by GNU tar (``spec/backup.md`` 3.1)."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from qubesd.errors import QubesError
from tests.broker.backup.forge import Member, good, read, written
from tests.qubesd.backup.by_hand import members, needs_scrypt

pytestmark = needs_scrypt

WORK = 3


@pytest.mark.parametrize("form", ["ustar", "posix", "gnu"])
def test_members_that_gnu_tar_has_written(tmp_path: Path, form: str) -> None:
    """The stock tools have it write ``posix``, with a header of times ahead of each."""
    archive, folder = tmp_path / "a", tmp_path / "members"
    with archive.open("wb") as out:
        for member in good():
            place = folder / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(member.content)
            words = ["tar", "-c", "-O", f"--format={form}", "-C", str(folder), member.name]
            out.write(subprocess.run(words, capture_output=True, check=True).stdout)
    assert (b"PaxHeaders" in archive.read_bytes()) is (form == "posix")
    assert members(archive) == [member.name for member in good()]
    assert read(archive) == ["mail", "work"]


def extended(records: bytes, name: str = "PaxHeaders/x") -> bytes:
    """An extended header without the member that follows it."""
    return Member(name, records, tarfile.XHDTYPE).dump()[:-1024]


@pytest.mark.parametrize(
    ("put", "words"),
    [
        *(
            pytest.param(extended(record), "which no member needs", id=name)
            for name, record in (
                ("path", b"16 path=../../x\n"),
                ("linkpath", b"14 linkpath=/\n"),
                ("size", b"10 size=1\n"),
                ("sparse", b"22 GNU.sparse.major=1\n"),
                ("unknown", b"7 x=yz\n"),
            )
        ),
        pytest.param(extended(b"nonsense\n"), "records cannot be read", id="no-record"),
        pytest.param(extended(b"8 uid=1\n" * 9000), "which none has", id="many"),
        pytest.param(extended(b"8 uid=1\n") * 2, "is no plain file", id="twice"),
        pytest.param(extended(b"8 uid=1\n") + bytes(512), "no member of a tar", id="of-nothing"),
        pytest.param(
            Member("PaxHeaders/x", b"8 uid=1\n", tarfile.XGLTYPE).dump(),
            "is no plain file",
            id="of-all",
        ),
    ],
)
def test_what_an_extended_header_may_not_say(tmp_path: Path, put: bytes, words: str) -> None:
    parts = [member.dump() for member in good()]
    archive = tmp_path / "a"
    archive.write_bytes(b"".join([*parts[:WORK], put, *parts[WORK:]]))
    with pytest.raises(QubesError, match=words):
        read(archive)


@pytest.mark.parametrize("left", [512, 516, 1024])
def test_an_extended_header_at_the_end(tmp_path: Path, left: int) -> None:
    archive = written(tmp_path / "a", good())
    with archive.open("ab") as out:
        out.write(extended(b"8 uid=1\n")[:left])
    with pytest.raises(QubesError, match=r"records cannot be read|no member of a tar"):
        read(archive)
