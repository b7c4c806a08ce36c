"""Our program's own directory, made from a wheel; the Debian package and ``tools/install`` lay the same one.

It holds ``python/`` (the packages, off everybody else's path), ``bin/`` (a launcher for each of the wheel's
console scripts, and the switch), ``systemd/`` (the units, which count only where the switch links them) and
``share/man/`` (the manual pages, which ``man`` finds where ``bin/`` is on its path).
"""

from __future__ import annotations

import compileall
import configparser
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tools.installation.switch import (
    PROGRAM,
    STOCK_SOCKET,
    STOCK_UNIT,
    TRIAL_UNIT,
    Link,
    SwitchError,
    Systemctl,
    below,
    hidden,
    mode,
    put_link,
    switch,
    sync_folder,
)

HERE = Path(__file__).resolve().parent
SWITCH = Link(Path("/usr/sbin/qubes-policy-switch"), PROGRAM / "bin/qubes-policy-switch")

MANUAL = Path("share/man")
"""Where the manual pages are, below the program's directory and below ``/usr``."""

_LAUNCHER = """\
#!/usr/bin/python3 -I
import os.path
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "python"))
from {module} import {function}

sys.exit({function}())
"""
"""Isolated from the caller's environment and folder (``-I``), for it runs as root and decides."""


def lay(wheel: Path, place: Path) -> None:
    """Make the program's directory.

    Raises:
        OSError: ``place`` is there already, or cannot be written.
        zipfile.BadZipFile, KeyError: this is no wheel of ours.
    """
    place.mkdir(mode=0o755)
    for folder in ("python", "bin", "systemd"):
        (place / folder).mkdir(mode=0o755)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            if path.match("*.data/data/share/man/*/*"):
                _write(place / safe(PurePosixPath(*path.parts[2:])), archive.read(name), 0o644)
            if path.parts[0].endswith((".dist-info", ".data")) or name.endswith("/"):
                continue
            _write(place / "python" / safe(path), archive.read(name), 0o644)
        for script, (module, function) in scripts(archive):
            text = _LAUNCHER.format(module=module, function=function)
            _write(place / "bin" / safe(PurePosixPath(script)), text.encode(), 0o755)
    _write(place / "bin" / SWITCH.leads.name, (HERE / "switch.py").read_bytes(), 0o755)
    for unit in (STOCK_SOCKET, STOCK_UNIT, TRIAL_UNIT):
        _write(place / "systemd" / unit, (HERE / "systemd" / unit).read_bytes(), 0o644)


def scripts(archive: zipfile.ZipFile) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each console script with the module and the function that it runs."""
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
    points = configparser.ConfigParser(delimiters=("=",))
    points.optionxform = str  # type: ignore[assignment,method-assign]  # names are kept as they are
    points.read_string(archive.read(name).decode())
    for script, where in sorted(points["console_scripts"].items()):
        module, _, function = where.partition(":")
        yield script, (module, function)


def safe(path: PurePosixPath) -> PurePosixPath:
    """A path that stays where it is put. Raises ``ValueError`` for another."""
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path}: leads out of the directory that it belongs to")
    return path


def install(wheel: Path, root: Path, wanted: str, systemctl: Systemctl | None) -> None:
    """Lay the program below a root and make the mode; what was there decides until then, and again where the
    new program does not run.

    Raises:
        SwitchError: the system's package manager has installed it, or the mode cannot be made.
        OSError: the root cannot be written.
    """
    program = below(root, PROGRAM)
    before = installed(program)
    program.parent.mkdir(parents=True, exist_ok=True)
    _clear(program, keep=before)
    version = _lay_version(wheel, program)
    put_link(program, Path(version))
    try:
        switch(root, wanted, systemctl)
    except SwitchError:
        if before is None:
            remove(root, systemctl)
        else:
            put_link(program, Path(before))
            switch(root, mode(root), systemctl)
        raise
    put_link(below(root, SWITCH.place), SWITCH.leads)
    _clear(program, keep=version)


def installed(program: Path) -> str | None:
    """The name of the version that the program's link leads to; ``None`` where there is none. Raises
    ``SwitchError`` where a package has brought it."""
    if program.is_symlink():
        return program.readlink().name
    if program.exists():
        raise SwitchError(f"{program}: a package brought it; upgrade or remove that with the package manager")
    return None


def _lay_version(wheel: Path, program: Path) -> str:
    """Lay the wheel's program beside the link that shall lead to it; the name has its digest."""
    unfinished = hidden(program)
    lay(wheel, unfinished)
    compileall.compile_dir(unfinished / "python", quiet=2, stripdir=unfinished, prependdir=PROGRAM)
    version = program.with_name(f"{program.name}.{digest(unfinished)}")
    if version.exists():
        shutil.rmtree(unfinished)
    else:
        os.sync()
        unfinished.rename(version)
    return version.name


def remove(root: Path, systemctl: Systemctl | None) -> None:
    """Put the stock daemon back and take away all that ``install`` brought.

    Raises:
        SwitchError: the system's package manager has installed it, or the stock daemon does not start.
    """
    program = below(root, PROGRAM)
    installed(program)
    switch(root, "stock", systemctl)
    SWITCH.take(root)
    program.unlink(missing_ok=True)
    if program.parent.exists():
        _clear(program, keep=None)
        sync_folder(program.parent)


def digest(place: Path) -> str:
    """Of the files' names, modes and contents; what Python compiled is made from them."""
    total = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            mode = path.stat().st_mode
            total.update(f"{path.relative_to(place)}\0{mode:o}\0".encode() + _hash(path))
    return total.hexdigest()[:12]


def _hash(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _clear(program: Path, keep: str | None) -> None:
    """Take away the other versions, and what an installation that was cut short left."""
    for path in [hidden(program), *program.parent.glob(f"{program.name}.*")]:
        if path.is_symlink():
            path.unlink()
        elif path.name != keep and path.is_dir():
            shutil.rmtree(path)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.write_bytes(content)
    path.chmod(mode)
