"""Volumes whose content nobody can read once the qube has stopped: under dm-crypt with a key that is thrown
away (``spec/storage.md`` 3).

The key goes from the kernel to ``cryptsetup`` through a pipe; it is on no disk and in no list of arguments.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from qubesd.errors import StorageError
from qubesd.storage.commands import Run

MAPPER = Path("/dev/mapper")

_CIPHER = "aes-xts-plain64"
_KEY_BITS = 512
_CLEARED = 64 << 10
"""Bytes at the beginning that are made zero: what was there is noise now, which can look like anything."""


def device(qube: str, volume: str) -> str:
    """The name of the mapped device of a qube's volume."""
    return f"vm-volatile-{qube.replace('_', '_u').replace('-', '_d')}-crypt@{volume}"


def opened(run: Run, path: str, name: str, mapper: Path = MAPPER) -> str:
    """Map the device or file at ``path`` under a fresh key; the path of the mapped device.

    Raises:
        StorageError: it cannot be, and nothing is mapped.
    """
    arguments = ["cryptsetup", "open", "--type", "plain", "--cipher", _CIPHER, "--key-size", str(_KEY_BITS)]
    run([*arguments, "--key-file", "-", "--", path, name], os.urandom(_KEY_BITS // 8))
    mapped = mapper / name
    try:
        with mapped.open("r+b", buffering=0) as file:
            file.write(bytes(_CLEARED))
    except OSError as error:
        with suppress(StorageError):
            close(run, name)
        raise StorageError(f"{mapped}: cannot be cleared: {error.strerror}") from error
    return str(mapped)


def close(run: Run, name: str) -> None:
    """Forget the key. Raises ``StorageError``."""
    run(["cryptsetup", "close", "--", name], b"")
