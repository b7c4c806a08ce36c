"""Backups of one daemon, restored into others by the program that people type."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.backup.program import main
from broker.client import CallError, call, connect, send_all
from broker.wire import encode_call
from qubesd.api.method import Call
from qubesd.backup.inner import find_extents
from qubesd.model.state import Klass, Qube
from tests.broker.backup.forge import (
    PASSPHRASE,
    SIZE,
    Member,
    good,
    image,
    inner,
    of_file,
    of_header,
    of_store,
    store,
    written,
)
from tests.broker.rig import PATIENCE, ROOT, Daemon, lay_out, serving, start, wait_until_served
from tests.qubesd.backup.by_hand import needs_scrypt

pytestmark = needs_scrypt

MIB = 1 << 20
POLICY = """\
admin.backup.Info * caller dom0 allow target=dom0
admin.vm.List * caller dom0 allow target=dom0
admin.label.List * caller dom0 allow target=dom0
admin.vm.List * caller caller allow target=dom0
admin.vm.List * caller kept allow target=dom0
"""


def ask(daemon: Daemon, service: str, target: str = "dom0", argument: str = "", payload: str = "") -> str:
    return call(daemon.socket, service, target, argument, payload.encode(), timeout=PATIENCE).decode()


def program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "broker.backup.program", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module")
def phrase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("phrase") / "phrase"
    file.write_text(f"{PASSPHRASE}\nnot this\n")
    return file


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
        assert json.loads(done.stdout) == {"restored": {"work": "work"}, "warnings": []}
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


def restored(daemon: Daemon, phrase: Path, archive: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return program("restore", "--root", daemon.root, "--passphrase-file", phrase, archive, *words)


def test_a_name_that_is_taken_gets_a_number(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    rules = b'<firewall version="2"><rules><rule><properties><property name="action">drop</property>'
    path = "vm2/firewall.xml"
    firewall = of_file(path, inner(path, rules + b"</properties></rule></rules></firewall>"))
    archive = written(tmp_path / "a", [*good(), firewall])
    for said in ("work: restored\n", "work-1: restored (was work)\n"):
        done = restored(daemon, phrase, archive, "work")
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    for name in ("work", "work-1"):
        assert (daemon.root / f"var/lib/qubes/appvms/{name}/private.img").read_bytes() == b"x" * SIZE
        assert ask(daemon, "admin.vm.notes.Get", name) == "n"
        assert ask(daemon, "admin.vm.firewall.Get", name) == "action=drop\n"
        ask(daemon, "admin.vm.Remove", name)


BROKEN = "vm3/private.img"


@pytest.mark.parametrize(
    ("members", "words", "said"),
    [
        pytest.param(good()[:-1], [], "is missing", id="cut-short"),
        pytest.param(
            [*good()[:-1], of_file(BROKEN, inner("../x", b"x"))], [], "holds another file", id="path-trick"
        ),
        pytest.param(
            [*good()[:-1], Member(f"{BROKEN}.000.enc", image(2).content)], [], "damaged", id="moved"
        ),
        pytest.param(good(), ["nosuch"], "no qube 'nosuch'", id="not-in-it"),
        pytest.param([*of_header(version="3"), *good()[2:]], [], "stock tools", id="older"),
    ],
)
def test_what_is_refused_changes_nothing(
    daemon: Daemon, phrase: Path, tmp_path: Path, members: list[Member], words: list[str], said: str
) -> None:
    state = (daemon.root / "var/lib/qubes/qubes.xml").read_bytes()
    done = restored(daemon, phrase, written(tmp_path / "a", members), *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert (daemon.root / "var/lib/qubes/qubes.xml").read_bytes() == state
    assert not (daemon.root / "var/lib/qubes/appvms/mail").exists()


def test_the_policy_judges_who_restores(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    done = restored(daemon, phrase, written(tmp_path / "a", good()), "--source", "caller")
    assert done.returncode == 1
    assert "work: cannot be made: admin.vm.Create.StandaloneVM: " in done.stderr
    assert "work" not in ask(daemon, "admin.vm.List")


def test_what_is_not_here_is_told_and_the_rest_restored(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    """A label, a tag of another system, a network that is gone: the qube is red and has no network."""
    text = store().replace(b"cc0000", b"cc0001").replace(b">red<", b">ruby<")
    marked = text.replace(
        b'<property name="label">ruby</property>',
        b'<property name="label">ruby</property><property name="netvm">gone</property>',
    ).replace(b"<tags/>", b'<tags><tag name="created-by-alice"/><tag name="mine"/></tags>')
    gone = marked.replace(b'name="name">mail<', b'name="name">gone<')
    members = good()
    members[2] = of_store(gone)
    done = restored(daemon, phrase, written(tmp_path / "a", members), "work")
    assert (done.returncode, done.stdout) == (1, "work: restored\n")
    assert "work: there is no label 'ruby'; it is red now" in done.stderr
    assert "work: property 'netvm': admin.vm.property.Set: no qube 'gone'" in done.stderr
    assert ask(daemon, "admin.vm.property.Get", "work", "netvm") == "default=False type=vm "
    assert ask(daemon, "admin.vm.tag.List", "work").split() == [
        *("audiovm-dom0", "created-by-dom0", "guivm-dom0", "mine")
    ]
    ask(daemon, "admin.vm.Remove", "work")


def test_names_follow_the_qubes_that_have_them(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    """A router whose name is taken here, a client of it, and a qube of another host."""
    marks = {"backup-content": "1", "backup-path": "vm4/", "backup-size": "0"}
    uuid = "00000000-0000-4000-8000-00000000000"
    far = Qube("far", 4, f"{uuid}4", Klass.REMOTE, {"label": "red"}, {**marks, "x": "y"})
    more = store({"mail": {}, "work": {}}, far).decode()
    for name, prop, value in (("mail", "provides_network", "True"), ("work", "netvm", "mail")):
        label, more_ = '<property name="label">', f'<property name="{prop}">{value}</property>'
        head, tail = more.split(f'<property name="name">{name}<', 1)
        at = head.rindex(label)
        more = f'{head[:at]}{more_}{head[at:]}<property name="name">{name}<{tail}'
    members = [*good(), of_file("vm4/empty", inner("vm4/empty"))]
    members[2] = of_store(more.encode())
    daemon.create("mail")
    done = restored(daemon, phrase, written(tmp_path / "a", members))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [
        "far: restored",
        "mail-1: restored (was mail)",
        "work: restored",
    ]
    assert ask(daemon, "admin.vm.property.Get", "work", "netvm") == "default=False type=vm mail-1"
    assert ask(daemon, "admin.vm.feature.List", "far") == "x\n"
    for name in ("work", "far", "mail", "mail-1"):
        assert "backup-restore-in-progress" not in ask(daemon, "admin.vm.tag.List", name)
        ask(daemon, "admin.vm.Remove", name)


def test_list_and_verify(
    phrase: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = written(tmp_path / "a", [*good(), of_file("dom0-home/ann", inner("dom0-home/ann/x"))])
    for words, status, want in (
        (["list"], 0, "work"),
        (["list", "--json"], 0, '"name": "work", "class": "StandaloneVM", "size": 1048576'),
        (["verify"], 0, "whole and authentic, 2 qubes"),
        (["verify", "--json"], 0, '"other": ["dom0-home/ann"]'),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--passphrase-file", str(phrase), str(archive)])
        assert ended.value.code == status
        assert want in capsys.readouterr().out


def test_a_passphrase_is_asked_for_on_the_terminal(tmp_path: Path) -> None:
    """And not shown there."""
    archive = written(tmp_path / "a", good())
    master, slave = os.openpty()
    shown: list[bytes] = []

    def look() -> None:
        try:
            while piece := os.read(master, 4096):
                shown.append(piece)
                if b"Passphrase" in piece:
                    os.write(master, f"{PASSPHRASE}\n".encode())
        except OSError:
            return

    terminal = threading.Thread(target=look)
    terminal.start()
    words = [sys.executable, "-m", "broker.backup.program", "verify", str(archive)]
    done = subprocess.run(
        words, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True, check=False
    )
    os.close(slave)
    terminal.join(PATIENCE)
    os.close(master)
    said = b"".join(shown)
    assert done.returncode == 0, said
    assert b"whole and authentic" in said
    assert PASSPHRASE.encode() not in said


def test_cancel_is_for_what_runs(daemon: Daemon) -> None:
    with pytest.raises(CallError, match="no backup by the profile 'p' is running"):
        ask(daemon, "admin.backup.Cancel", argument="p")
