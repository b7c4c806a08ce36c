"""The files that extensions added to a backup: no call can bring them back in, so they are put into a new
folder, from where who knows the extension takes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qubesd.backup.processes import write_all
from qubesd.errors import QubesError


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A folder that nobody else can read, and that is gone after this where nothing was put in it.

    Raises:
        QubesError: there is something at the place, or it cannot be made.
    """
    try:
        place.mkdir(mode=0o700)
    except FileExistsError as error:
        raise QubesError(f"{place}: is there; name a folder that is not, for the files to lie in") from error
    except OSError as error:
        raise QubesError(f"{place}: cannot be made: {error.strerror}") from error
    try:
        yield place
    finally:
        if not any(place.iterdir()):
            place.rmdir()


def put(folder: Path, qube: str, name: str, content: bytes) -> None:
    """Write the qube's file of that name, which is not there yet.

    Raises:
        OSError: that failed, and nothing of it is left.
    """
    place = folder / qube / name
    place.parent.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(place, flags, 0o600), "wb", buffering=0) as file:
        try:
            write_all(file.fileno(), content)
        except OSError as error:
            place.unlink()
            raise OSError(error.errno, error.strerror, str(place)) from error
