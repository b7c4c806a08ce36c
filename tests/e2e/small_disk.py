"""A daemon on a small disk of its own, which can be filled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qubesd.backup.inner import find_extents
from tests.broker.rig import PATIENCE, ROOT, Daemon, errors, lay_out, wait_until_served

SIZE = "4m"
MOUNT = 'mount -t tmpfs -o size="$1",nr_inodes=1k,mode=755 none "$2" && shift 2 && exec "$@"'
FULL = "No space left on device: free some space there and try again"

Tree = dict[str, tuple[int, list[tuple[int, bytes]]]]


@contextmanager
def on_a_small_disk(root: Path, folder: str = "var") -> Iterator[tuple[Daemon, Path]]:
    """A daemon, and the folder that is on the small disk: the one in which it keeps everything but its
    configuration and its policy, or another below its root.

    The file system is there for the daemon alone and goes with it; others see it through the daemon's root.
    """
    lay_out(root, "")
    (root / folder).mkdir(parents=True, exist_ok=True)
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*alone, "sh", "-c", MOUNT, "sh", SIZE, str(root / folder)]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("this user may mount nothing, not even alone")
    with (root / "errors").open("ab") as log:
        process = subprocess.Popen(
            [*command, sys.executable, "-m", "broker.daemon", "--root", str(root)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        wait_until_served(root, process)
        yield Daemon(root, process), Path(f"/proc/{process.pid}/root{root}/{folder}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in errors(root), errors(root)


def beside(daemon: Daemon, *command: str | Path) -> list[str | Path]:
    """The command, where it sees the disk of the daemon."""
    own = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    return ["nsenter", f"--target={daemon.process.pid}", "--mount", *own, *command]


def fill(place: Path) -> None:
    """Take all the room there is."""
    with place.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 12):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def fill_with_files(folder: Path) -> None:
    """Leave room for no other file, with much for what is in those that are there."""
    folder.mkdir()
    try:
        for number in range(1 << 20):
            (folder / str(number)).touch()
    except OSError:
        return


def tree(folder: Path) -> Tree:
    """Every file below the folder: its size, and its data by their places. The store before the last change
    is left out: a change that was taken back has been written."""
    found = {}
    for place in folder.rglob("*"):
        if place.is_file() and place.name != "qubes.xml.previous":
            with place.open("rb") as file:
                size = place.stat().st_size
                extents = find_extents(file.fileno(), size)
                data = [(start, os.pread(file.fileno(), length, start)) for start, length in extents]
            found[str(place.relative_to(folder))] = size, data
    return found
