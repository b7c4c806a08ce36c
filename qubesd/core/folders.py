"""The folder of a qube, with what is kept of it besides the system: its firewall and its notes.

Every function blocks on the disk.
"""

from __future__ import annotations

import os
from pathlib import Path

from qubesd.config import Config
from qubesd.disk import sync, why
from qubesd.errors import StoreError
from qubesd.model.state import Klass, Qube

FIREWALL = "firewall.xml"
NOTES = "notes.txt"

_KINDS = ("appvms", "vm-templates")
_MODE = 0o664
_UNFINISHED = "~"


def place(config: Config, qube: Qube, name: str) -> Path:
    """The file of that name in the qube's folder."""
    return config.qubes_dir / _KINDS[qube.klass is Klass.TEMPLATE] / qube.name / name


def read(file: Path) -> bytes | None:
    """The content; ``None`` where there is no such file.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {why(error)}") from error


def write(file: Path, content: bytes) -> None:
    """Replace the file in one step, durably; ``StoreError`` where that fails, and it is as before."""
    try:
        if not file.parent.is_dir():
            file.parent.mkdir(mode=0o770, parents=True, exist_ok=True)
            sync(file.parent.parent)
        before = file.read_bytes() if file.exists() else None
        _replace(file, content)
        try:
            sync(file.parent)
        except OSError:
            # It may not last, and the caller will be told that nothing was changed.
            _put_back(file, before)
            raise
    except OSError as error:
        raise StoreError(f"{file}: cannot be written, nothing was changed: {why(error)}") from error


def _replace(file: Path, content: bytes) -> None:
    unfinished = file.with_name(file.name + _UNFINISHED)
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        with open(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(descriptor)
        os.replace(unfinished, file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _put_back(file: Path, before: bytes | None) -> None:
    if before is None:
        file.unlink()
    else:
        _replace(file, before)


def remove(config: Config, name: str) -> None:
    """Remove these files of the qube of that name, and its folder when nothing else is in it.

    Raises:
        StoreError: something of it stays.
    """
    for kind in _KINDS:
        folder = config.qubes_dir / kind / name
        try:
            if not folder.is_dir():
                continue
            for file in (FIREWALL, NOTES):
                (folder / file).unlink(missing_ok=True)
                (folder / (file + _UNFINISHED)).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
            sync(folder.parent)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be removed: {why(error)}") from error
