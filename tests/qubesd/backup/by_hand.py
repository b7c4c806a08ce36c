"""An archive of a backup, read by what ``spec/backup.md`` says with plain ``tar``, ``scrypt`` and the
decompressors. It imports nothing of ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

import pytest

needs_scrypt = pytest.mark.skipif(shutil.which("scrypt") is None, reason="scrypt is not installed")


def members(archive: Path) -> list[str]:
    """The names in the outer layer, in order."""
    done = subprocess.run(["tar", "-t", "-i", "-f", archive], capture_output=True, check=True, text=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def unpacked(archive: Path, passphrase: str) -> Path:
    """A new folder with every file of the archive as it was saved."""
    outer, inner = Path(mkdtemp(dir=archive.parent)), Path(mkdtemp(dir=archive.parent))
    subprocess.run(["tar", "-x", "-i", "-f", archive, "-C", outer], check=True)
    header = (outer / "backup-header").read_bytes()
    assert decrypted(outer / "backup-header.hmac", f"backup-header!{passphrase}") == header
    values = dict(line.split("=") for line in header.decode("ascii").splitlines())
    assert (values["version"], values["encrypted"], values["hmac-algorithm"]) == ("4", "True", "scrypt")
    for first in sorted(outer.rglob("*.000.enc")):
        path = re.sub(r"\.000\.enc$", "", str(first.relative_to(outer)))
        with (inner / "stream").open("wb") as stream:
            for number in range(1000):
                chunk = outer / f"{path}.{number:03}.enc"
                if not chunk.exists():
                    break
                decrypted(chunk, f"{values['backup-id']}!{path}.{number:03}!{passphrase}", stream)
        _extract(inner, values["compression-filter"] if values["compressed"] == "True" else None)
    (inner / "stream").unlink()
    return inner


def decrypted(file: Path, passphrase: str, output: IO[bytes] | None = None) -> bytes:
    done = subprocess.run(
        ["scrypt", "dec", "-f", "-P", file],
        input=passphrase.encode() + b"\n",
        stdout=output or subprocess.PIPE,
        check=True,
    )
    return done.stdout or b""


def _extract(folder: Path, program: str | None) -> None:
    with (folder / "stream").open("rb") as stream:
        if program is None:
            subprocess.run(["tar", "-x", "-f", "-", "-C", folder], stdin=stream, check=True)
            return
        with subprocess.Popen([program, "-dc"], stdin=stream, stdout=subprocess.PIPE) as filter_:
            subprocess.run(["tar", "-x", "-f", "-", "-C", folder], stdin=filter_.stdout, check=True)
        assert filter_.returncode == 0
