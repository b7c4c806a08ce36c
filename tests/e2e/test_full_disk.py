"""A disk that is really full, under everything that is kept: what changes is refused with what to do, what
reads goes on, and with room again all goes on and nothing is missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.client import call
from broker.wire import Failure
from tests.broker.rig import PATIENCE, ROOT, Daemon, answer, errors, lay_out, wait_until_served

SIZE = "4m"
MOUNT = 'mount -t tmpfs -o size="$1",mode=755 none "$2" && shift 2 && exec "$@"'


@contextmanager
def on_a_small_disk(root: Path) -> Iterator[tuple[Daemon, Path]]:
    """A daemon, and the folder in which it keeps everything but its configuration and its policy.

    The file system is there for the daemon alone and goes with it; others see it through the daemon's root.
    """
    lay_out(root, "")
    (root / "var").mkdir()
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*alone, "sh", "-c", MOUNT, "sh", SIZE, str(root / "var")]
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
        yield Daemon(root, process), Path(f"/proc/{process.pid}/root{root}/var")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in errors(root), errors(root)


def fill(place: Path) -> None:
    """Take all the room there is."""
    with place.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 12):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def audited(folder: Path) -> list[int]:
    """The numbers of the calls that have a record."""
    lines = (folder / "log/qubes/qubesd-audit.jsonl").read_text("ascii").split("\n")
    return [json.loads(line)["call"] for line in lines[:-1]]


CHANGES = [
    ("admin.vm.tag.Set", "work", "new", b""),
    ("admin.vm.Create.StandaloneVM", "dom0", "", b"name=more label=red"),
    ("policy.Replace", "dom0", "30-new", b"any\nmy.Service * @anyvm @anyvm deny\n"),
]
"""Calls that write the store, the files of a qube, and the history of the policy."""


def test_a_full_disk(tmp_path: Path) -> None:
    with on_a_small_disk(tmp_path) as (daemon, var):
        daemon.create("work")
        rows = call(daemon.socket, "admin.vm.List")
        store = (var / "lib/qubes/qubes.xml").read_bytes()
        fill(var / "filler")
        for service, target, argument, payload in CHANGES:
            refused = answer(daemon.socket, service, target, argument, payload)
            assert isinstance(refused, Failure), service
            assert "No space left on device: free some space there and try again" in refused.message
        for _ in range(50):
            assert call(daemon.socket, "admin.vm.List") == rows
        assert (var / "lib/qubes/qubes.xml").read_bytes() == store
        assert not (tmp_path / "etc/qubes/policy.d/30-new.policy").exists()
        held_back = len(audited(var))
        assert "the audit stands still: No space left on device; free some space" in errors(tmp_path)
        (var / "filler").unlink()
        for service, target, argument, payload in CHANGES:
            assert answer(daemon.socket, service, target, argument, payload) == b"", service
        assert "the audit goes on" in errors(tmp_path)
        assert call(daemon.socket, "admin.vm.List").count(b"\n") == rows.count(b"\n") + 1
        assert (tmp_path / "etc/qubes/policy.d/30-new.policy").exists()
        numbers = audited(var)
    assert held_back < len(numbers)
    assert numbers == list(range(1, len(numbers) + 1))
