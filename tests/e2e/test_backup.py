"""Backups of one daemon, restored into others by the program that people type."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.client import CallError, call, connect, send_all
from broker.wire import encode_call
from qubesd.api.call import Call
from qubesd.backup.inner import find_extents
from tests.broker.backup.forge import PASSPHRASE
from tests.broker.rig import PATIENCE, Daemon, lay_out, serving, start, wait_until_served
from tests.e2e.backup_rig import ask, phrase_in, restored
from tests.qubesd.backup.by_hand import needs_scrypt

pytestmark = needs_scrypt

MIB = 1 << 20
POLICY = """\
admin.backup.Info * caller dom0 allow target=dom0
admin.vm.List * caller dom0 allow target=dom0
admin.vm.List * caller caller allow target=dom0
admin.vm.List * caller kept allow target=dom0
"""


@pytest.fixture(scope="module")
def phrase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phrase_in(tmp_path_factory.mktemp("phrase"))


def profile(root: Path, **settings: str) -> None:
    values = {
        "include": "[work]",
        "destination_vm": "dom0",
        "destination_path": str(root / "archive"),
        "passphrase_text": PASSPHRASE,
        **settings,
    }
    folder = root / "etc/qubes/backup"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "p.conf").write_text("".join(f"{key}: {value}\n" for key, value in values.items()))


def peak(daemon: Daemon) -> int:
    """The most memory that the daemon has had, in KiB."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def written_in(image: Path) -> list[tuple[int, bytes]]:
    """The data of a sparse image by their places. To read its holes takes a long time."""
    with image.open("rb") as file:
        extents = find_extents(file.fileno(), image.stat().st_size)
        return [(start, os.pread(file.fileno(), length, start)) for start, length in extents]


def test_from_one_system_to_another(tmp_path: Path, phrase: Path) -> None:
    """An image of 2 GiB with 42 MiB in it takes no memory, and comes back to the byte."""
    one, other = tmp_path / "one", tmp_path / "other"
    original = one / "var/lib/qubes/appvms/work/private.img"
    with serving(one) as daemon:
        daemon.create("work")
        for service, argument, payload in (
            ("admin.vm.property.Set", "memory", "512"),
            ("admin.vm.feature.Set", "colour", "loud"),
            ("admin.vm.tag.Set", "mine", ""),
        ):
            ask(daemon, service, "work", argument, payload)
        with original.open("r+b") as file:
            for place in (0, 700 * MIB, 1999 * MIB):
                file.seek(place)
                file.writelines(os.urandom(MIB) for _ in range(14))
        profile(one, compression="false")
        before = peak(daemon)
        ask(daemon, "admin.backup.Execute", argument="p")
        assert peak(daemon) - before < 24 * 1024
    with serving(other) as daemon:
        done = restored(daemon, phrase, one / "archive", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == {"restored": {"work": "work"}, "home": None, "warnings": []}
        copy = other / "var/lib/qubes/appvms/work/private.img"
        assert written_in(copy) == written_in(original)
        assert copy.stat().st_size == original.stat().st_size == 2048 * MIB
        assert ask(daemon, "admin.vm.property.Get", "work", "memory").endswith("512")
        assert ask(daemon, "admin.vm.feature.List", "work") == "colour\n"
        assert ask(daemon, "admin.vm.tag.List", "work").split()[-1] == "mine"
        ask(daemon, "admin.vm.Start", "work")


def test_a_killed_daemon_leaves_nothing(tmp_path: Path) -> None:
    lay_out(tmp_path, "")
    process = start(tmp_path)
    wait_until_served(tmp_path, process)
    daemon = Daemon(tmp_path, process)
    daemon.create("work")
    with (tmp_path / "var/lib/qubes/appvms/work/private.img").open("r+b") as file:
        file.writelines(os.urandom(MIB) for _ in range(60))
    folder = tmp_path / "archives"
    folder.mkdir()
    profile(tmp_path, destination_path=str(folder / "a"), compression="bzip2")
    with connect(daemon.socket, PATIENCE) as connection:
        send_all(connection, encode_call(Call("admin.backup.Execute", "p", "dom0", "dom0", b"")))
        until(lambda: (folder / ".a.unfinished").exists())
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        started = " ".join(file.read_text() for file in tasks).split()
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not any(is_running(pid) for pid in started))
    daemon.socket.unlink()
    with serving(tmp_path):
        assert os.listdir(folder) == []
        assert os.listdir(tmp_path / "var/lib/qubes/.backups") == []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("daemon")
    with serving(root, POLICY) as daemon:
        daemon.create("caller", "kept", "secret")
        ask(daemon, "admin.vm.Start", "caller")
        yield daemon


def test_who_has_gone_stops_nothing(daemon: Daemon) -> None:
    profile(daemon.root, include="[kept]", destination_path=str(daemon.root / "left"))
    with connect(daemon.socket, PATIENCE) as connection:
        send_all(connection, encode_call(Call("admin.backup.Execute", "p", "dom0", "dom0", b"")))
    until((daemon.root / "left").exists)


def test_a_caller_is_told_of_the_qubes_that_it_may_list(daemon: Daemon) -> None:
    profile(daemon.root, include="[kept, secret]")
    for image_ in ("kept", "secret"):
        with (daemon.root / f"var/lib/qubes/appvms/{image_}/private.img").open("r+b") as file:
            file.write(bytes([1]) * MIB)
    told = call(daemon.channel("caller"), "admin.backup.Info", "dom0", "p", timeout=PATIENCE).decode()
    assert [line.split() for line in told.splitlines()] == [
        ["VM", "type", "size"],
        ["-----", "----", "-------"],
        ["kept", "VM", "1.0", "MiB"],
        ["total", "1.0", "MiB"],
        [],
        ["not", "selected:"],
        ["dom0"],
        ["caller"],
    ]
    assert "2.0 MiB" in ask(daemon, "admin.backup.Info", argument="p")


def test_cancel_is_for_what_runs(daemon: Daemon) -> None:
    with pytest.raises(CallError, match="no backup by the profile 'p' is running"):
        ask(daemon, "admin.backup.Cancel", argument="p")
