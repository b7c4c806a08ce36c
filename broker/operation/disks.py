"""What the doctor sees on the disks: folders, room, and the store."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from broker.operation.finding import Finding, error, ok, warning
from qubesd.config import Config
from qubesd.disk import reason
from qubesd.errors import StoreError
from qubesd.store.check import Outcome, check

_MIB = 1024 * 1024
LITTLE = 512 * _MIB
"""Bytes; with less than that free, or less than a twentieth, it is time to look."""

LEAST = 16 * _MIB
"""Bytes; with less than that free the next change may fail."""

FEWEST_FILES = 1_000


def folders(config: Config) -> Iterator[Finding]:
    """Those that must be there, who may write in them, and those that the daemon makes itself."""
    for folder in (config.qubes_dir, config.run_dir, config.log_dir):
        yield _folder(folder, writable=True)
    yield _folder(config.policy_dir, writable=False)
    yield _folder(config.policy_runtime, writable=False)
    for folder in (config.services_dir, config.channels_dir, config.policy_history):
        if folder.exists():
            yield _folder(folder, writable=True)
    kernels = [found.parent.name for found in config.kernels_dir.glob("*/vmlinuz")]
    if kernels:
        yield ok("kernels", f"{config.kernels_dir}: {', '.join(sorted(kernels))}")
    else:
        yield warning(
            "kernels",
            f"{config.kernels_dir}: no kernel is there",
            "install one, or give the qubes kernels of their own",
        )


def _folder(folder: Path, writable: bool) -> Finding:
    try:
        found = folder.stat()
    except OSError as problem:
        return error("folder", f"{folder}: {reason(problem)}", f"mkdir -p {folder}")
    if not stat.S_ISDIR(found.st_mode):
        return error("folder", f"{folder}: is no folder", "move away what is there, and make one")
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return error("folder", f"{folder}: everybody may write there", f"chmod o-w {folder}")
    if found.st_uid not in (0, os.geteuid()):
        return warning(
            "folder",
            f"{folder}: belongs to user {found.st_uid}, who may change what is in it",
            f"chown root {folder}",
        )
    if writable and not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return error(
            "folder",
            f"{folder}: user {os.geteuid()} may not write there",
            "run this as the daemon's user; if it was: mount it writable, or mend owner and mode",
        )
    return ok("folder", f"{folder}: mode {stat.S_IMODE(found.st_mode):04o}")


def room(config: Config) -> Iterator[Finding]:
    """Each file system once that something is kept on."""
    seen: set[int] = set()
    for folder in (
        config.qubes_dir,
        config.log_dir,
        config.policy_history,
        config.policy_dir,
        config.run_dir,
    ):
        if not folder.is_dir():
            continue
        device = folder.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield _room(folder)


def _room(folder: Path) -> Finding:
    figures = os.statvfs(folder)
    free, total = figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize
    what = f"{folder}: {free // _MIB} of {total // _MIB} MiB are free"
    if figures.f_files and figures.f_favail < FEWEST_FILES:
        return warning("room", f"{folder}: room for {figures.f_favail} more files", "remove files there")
    if free < LEAST:
        return error("room", what, "free some space: the next change may fail")
    if free < LITTLE and free * 20 < total:
        return warning("room", what, "free some space before changes fail")
    return ok("room", what)


def store(config: Config) -> tuple[Finding, Outcome | None]:
    """How the daemon would take the store, and what is in it where it would."""
    if config.store.exists() and not config.store.is_file():
        what = f"{config.store}: is no file"
        return error("store", what, "move away what is there, and restore it from a backup"), None
    try:
        outcome = check(config.store.read_bytes(), str(config.store))
    except FileNotFoundError:
        return (
            error("store", f"{config.store}: not there", "restore it from a backup, or qubesd --create"),
            None,
        )
    except OSError as problem:
        do = "run this as root" if isinstance(problem, PermissionError) else "see the log of the kernel"
        return error("store", f"{config.store}: cannot be read: {reason(problem)}", do), None
    except StoreError as problem:
        return (
            error(
                "store",
                str(problem),
                f"mend it, or go back to {config.store}.previous or a copy in {config.store_copies}",
            ),
            None,
        )
    what = f"{config.store}: qubes: {outcome.qubes}"
    if outcome.odd:
        return (
            warning("store", f"{what}; {outcome.odd[0]}", f"qubesd --check {config.store}"),
            outcome,
        )
    return ok("store", what), outcome
