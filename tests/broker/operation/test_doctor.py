"""``qubesd --doctor``: each ill is found, with something to do about it, and a sound host has none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.daemon import main
from broker.operation.doctor import findings
from broker.operation.finding import Level
from broker.root import furnish
from broker.sockets import Access, bind, publish
from broker.wire import Failure
from qubesd.config import Config, rooted
from qubesd.store.fresh import fresh_system
from qubesd.store.xml import dump
from tests.broker.rig import ROOT, answer, errors, serving
from tests.qubesd.store.versions import STOCK_4_3

Ill = Callable[[Config], None]


def laid_out(root: Path) -> Config:
    """A host on which a daemon would start."""
    config = rooted(root)
    furnish(config)
    config.store.write_bytes(dump(fresh_system(config.qubes_dir, config.kernels_dir)))
    return config


def configured(text: str) -> Ill:
    def make(config: Config) -> None:
        (config.policy_dir.parent / "qubesd.toml").write_text(text, encoding="utf-8")

    return make


def remove_kernels(config: Config) -> None:
    (config.kernels_dir / "0-placeholder/vmlinuz").unlink()


def flawed_policy(config: Config) -> None:
    (config.policy_dir / "10-mine.policy").write_text("my.Service * work\n", encoding="utf-8")


def old_form(config: Config) -> None:
    config.policy_legacy.mkdir(parents=True)
    (config.policy_legacy / "my.Service").write_text("work vault allow\n", encoding="utf-8")


def other_daemon(config: Config) -> None:
    config.policy_socket.parent.mkdir(parents=True, exist_ok=True)
    left.append(bind(config.policy_socket, Access(0o600)))
    publish(config.policy_socket)


def open_to_all(config: Config) -> None:
    other_daemon(config)
    config.policy_socket.chmod(0o666)


def in_the_way(config: Config) -> None:
    config.log_dir.rmdir()
    config.log_dir.write_text("")


def held_by_another(config: Config) -> None:
    """As by a daemon that does not answer any more."""
    script = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, config.store], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    started.append(process)


def no_file_for_a_store(config: Config) -> None:
    """One that would be waited for."""
    config.store.unlink()
    os.mkfifo(config.store)


def written_later(config: Config) -> None:
    later = time.time() + 86400
    os.utime(config.store, (later, later))


left: list[socket.socket] = []
"""What has to be closed after a test."""

started: list[subprocess.Popen[bytes]] = []
"""What has to end after it."""


@contextmanager
def closing_all() -> Iterator[None]:
    try:
        yield
    finally:
        while left:
            left.pop().close()
        while started:
            started.pop().communicate(b"\n", timeout=20)


@pytest.mark.parametrize(
    ("ill", "level", "about", "what", "do"),
    [
        pytest.param(
            configured("x = 1\n"), "error", "config", "unknown key 'x'", "qubesd.toml(5)", id="config"
        ),
        pytest.param(
            configured('socket_group = "no-such"\n'), "error", "group", "'no-such'", "groupadd", id="group"
        ),
        pytest.param(
            lambda config: config.log_dir.rmdir(),
            "error",
            "folder",
            "No such file",
            "mkdir -p",
            id="no-folder",
        ),
        pytest.param(in_the_way, "error", "folder", "is no folder", "move away", id="no-such-folder"),
        pytest.param(
            lambda config: config.policy_dir.chmod(0o777),
            "error",
            "folder",
            "everybody",
            "chmod o-w",
            id="mode",
        ),
        pytest.param(
            lambda config: config.store.chmod(0o666),
            "error",
            "files",
            "may change it",
            "chmod o-w",
            id="store-mode",
        ),
        pytest.param(
            lambda config: (config.policy_dir / "90-admin-default.policy").chmod(0o646),
            "error",
            "files",
            "90-admin-default.policy: everybody",
            "chmod o-w",
            id="policy-mode",
        ),
        pytest.param(
            lambda config: (config.policy_dir / "include").chmod(0o1777),
            "error",
            "files",
            "include: everybody",
            "chmod o-w",
            id="policy-folder-mode",
        ),
        pytest.param(
            lambda config: os.chown(config.store, 12345, 0),
            "warning",
            "files",
            "belongs to user 12345",
            "chown root",
            id="store-owner",
        ),
        pytest.param(no_file_for_a_store, "error", "store", "is no file", "move away", id="store-is-no-file"),
        pytest.param(held_by_another, "error", "store", "so that no daemon can start", "kill ", id="held"),
        pytest.param(written_later, "error", "clock", "qubes.xml was written at", "set it", id="clock"),
        pytest.param(remove_kernels, "warning", "kernels", "no kernel", "install", id="kernels"),
        pytest.param(
            lambda config: config.store.unlink(), "error", "store", "not there", "backup", id="no-store"
        ),
        pytest.param(
            lambda config: config.store.write_text("<qubes>"),
            "error",
            "store",
            "not well-formed",
            ".previous",
            id="damaged-store",
        ),
        pytest.param(
            lambda config: config.store.write_text(STOCK_4_3.replace('mode="required"', 'mode="manual"')),
            "warning",
            "store",
            "unknown mode 'manual'",
            "qubesd --check",
            id="odd-store",
        ),
        pytest.param(
            lambda config: config.store.write_text(STOCK_4_3.replace("zfs", "btrfs")),
            "warning",
            "pool",
            "no driver 'btrfs'",
            "qubesd --check",
            id="driver",
        ),
        pytest.param(
            lambda config: config.store.write_text(STOCK_4_3),
            "warning",
            "program",
            "zfs: not there",
            "install zfs",
            id="program",
        ),
        pytest.param(flawed_policy, "error", "policy", "10-mine.policy:1", "qubes-policy check", id="policy"),
        pytest.param(
            old_form, "warning", "policy", "1 files in the old form", "qrexec-legacy-convert", id="old"
        ),
        pytest.param(
            configured('hypervisor = "qemu"\n'),
            "error",
            "hypervisor",
            "unknown driver 'qemu'",
            "libvirt",
            id="driver-of-libvirt",
        ),
        pytest.param(
            configured('libvirt_uri = "test:///no/such/file"\n'),
            "error",
            "hypervisor",
            "cannot reach",
            "libvirtd",
            id="libvirt",
        ),
        pytest.param(
            configured("guest_service = '/no/such {qube} {service}'\n"),
            "warning",
            "program",
            "/no/such: not there",
            "install such",
            id="guest-service",
        ),
        pytest.param(lambda config: None, "warning", "qubesd", "nobody answers", "systemctl start", id="off"),
        pytest.param(
            lambda config: None, "warning", "agent", "nobody answers", "qrexec-policy-agent", id="agent"
        ),
        pytest.param(
            other_daemon, "error", "in front", "not told of", "trust_qrexec_consent = true", id="other"
        ),
        pytest.param(open_to_all, "error", "socket", "everybody may call", "chmod o=", id="open-to-all"),
        pytest.param(
            configured("trust_qrexec_consent = true\n"),
            "error",
            "in front",
            "nobody answers",
            "start a policy daemon",
            id="nobody-in-front",
        ),
    ],
)
def test_an_ill_is_found(tmp_path: Path, ill: Ill, level: str, about: str, what: str, do: str) -> None:
    config = laid_out(tmp_path)
    ill(config)
    with closing_all():
        found = list(findings(tmp_path, None))
    matching = [one for one in found if one.about == about and what in one.what]
    assert [(one.level, do in one.do) for one in matching] == [(level, True)], found
    assert [one for one in found if (one.level is Level.OK) == bool(one.do)] == []


def test_a_sound_host_that_serves(tmp_path: Path) -> None:
    """The daemon runs, in another process; nobody is there to be asked."""
    with serving(tmp_path) as daemon:
        daemon.create("before")  # what it says of its start is in the log then
        before = errors(tmp_path)
        command = [sys.executable, "-m", "broker.daemon", "--root", str(tmp_path), "--doctor", "--json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
        checked = subprocess.run(
            [*command[:3], "--check", str(tmp_path / "var/lib/qubes/qubes.xml")],
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=False,
        )
        daemon.create("after")
        assert errors(tmp_path) == before
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, checked.returncode) == (0, b"", 0)
    assert {one["about"] for one in found if one["level"] != "ok"} <= {
        "agent",
        "inotify",
        "descriptors",
        "room",
        "program",
    }
    served = {one["about"]: one["what"] for one in found}
    assert str(daemon.process.pid) in served["qubesd"]
    assert served["in front"].endswith("qubesd itself")
    assert "rules" in served["in force"]


def test_a_store_that_was_replaced(tmp_path: Path) -> None:
    """By an editor, say: the daemon that runs refuses every change from then on."""
    with serving(tmp_path) as daemon:
        store = rooted(tmp_path).store
        daemon.create("before")
        assert [one for one in findings(tmp_path, None) if "was replaced" in one.what] == []
        copy = store.with_name("copy")
        copy.write_bytes(store.read_bytes())
        copy.rename(store)
        (found,) = [one for one in findings(tmp_path, None) if "was replaced" in one.what]
        assert (found.level, found.about) == (Level.ERROR, "store")
        assert f"process {daemon.process.pid}" in found.what
        refused = answer(daemon.socket, "admin.vm.tag.Set", "before", "x")
        assert isinstance(refused, Failure)


@pytest.mark.parametrize(
    ("flaw", "level", "what"),
    [
        pytest.param(lambda place: place.unlink(), "error", "metrics.sock: nobody answers", id="gone"),
        pytest.param(lambda place: place.chmod(0o666), "error", "everybody may read the figures", id="open"),
    ],
)
def test_the_figures_are_looked_after(
    tmp_path: Path, flaw: Callable[[Path], None], level: str, what: str
) -> None:
    with serving(tmp_path):
        flaw(rooted(tmp_path).metrics_socket)
        (found,) = [one for one in findings(tmp_path, None) if "metrics.sock" in one.what and one.do]
    assert (found.level, what in found.what) == (level, True)


def test_what_is_shown_to_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    laid_out(tmp_path).store.unlink()
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(tmp_path), "--doctor"])
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"error   store       {tmp_path}/var/lib/qubes/qubes.xml: not there")
    assert lines[at + 1] == f"{'':20}do: restore it from a backup, or qubesd --create"
    assert lines[-1].endswith(" 1 error")
