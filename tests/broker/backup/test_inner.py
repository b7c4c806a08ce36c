"""The inner layer as GNU tar writes it, in each of its forms."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from broker.backup.inner import Reader

MIB = 1 << 20


def packed(folder: Path, name: str, *words: str) -> bytes:
    command = ["tar", "-c", *words, "-C", str(folder), "--", name]
    return subprocess.run(command, capture_output=True, check=True).stdout


def whole(reader: Reader) -> bytes:
    made = bytearray(reader.entry.size)
    for place, data in reader.pieces():
        made[place : place + len(data)] = data
    return bytes(made)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--format=gnu", "--sparse"], id="older-sparse"),
        pytest.param(["--format=posix", "--sparse", "--sparse-version=1.0"], id="sparse"),
        pytest.param(["--format=gnu"], id="dense"),
        pytest.param(["--format=posix"], id="dense-with-records"),
        pytest.param(["--format=ustar"], id="ustar"),
    ],
)
@pytest.mark.parametrize("pieces", [pytest.param(n, id=f"{n}-pieces") for n in (0, 1, 5, 60)])
def test_what_gnu_tar_writes(tmp_path: Path, words: list[str], pieces: int) -> None:
    image = tmp_path / "vm7/private.img"
    image.parent.mkdir()
    with image.open("wb") as file:
        for number in range(pieces):
            file.seek(number * 128 * 1024 + 4096)
            file.write(os.urandom(5000))
        file.truncate(8 * MIB)
    archive = packed(tmp_path, "vm7/private.img", *words)
    assert whole(Reader(io.BytesIO(archive), "vm7/private.img", 8 * MIB, len(archive))) == image.read_bytes()


def test_a_large_number_is_written_in_bytes(tmp_path: Path) -> None:
    """In the older form, from 8 GiB on."""
    image = tmp_path / "a"
    with image.open("wb") as file:
        file.seek(9 << 30)
        file.write(b"end")
    archive = packed(tmp_path, "a", "--format=gnu", "--sparse")
    reader = Reader(io.BytesIO(archive), "a", 10 << 30, len(archive))
    assert reader.entry.size == (9 << 30) + 3
    assert list(reader.pieces())[-1][1].rstrip(b"\0").endswith(b"end")
