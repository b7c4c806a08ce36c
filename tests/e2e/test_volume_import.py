"""The two import programs as the qrexec daemon runs them, against a daemon on real sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import call
from broker.wire import Failure, parse_reply
from tests.broker.rig import Daemon, serving

MIB = 1 << 20
SOCKET = "--qubesd-internal-socket-path"
POLICY = """\
admin.vm.volume.ImportWithSize * alice work allow target=dom0
admin.vm.volume.Import         * alice work allow target=dom0
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("root"), POLICY) as daemon:
        for name in ("alice", "bob", "work"):
            daemon.create(name)
        assert imported(daemon, b"%d\n" % MIB + b"as it was".ljust(MIB), "--with-size") == b""
        yield daemon


def imported(
    daemon: Daemon,
    data: bytes,
    *options: str,
    source: str = "alice",
    target: str = "work",
    volume: str = "private",
) -> bytes | Failure:
    path = daemon.root / "run/qubesd.internal.sock"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "broker.services.volume_import",
            volume,
            *options,
            f"--qubesd-internal-socket-path={path}",
        ],
        input=data,
        capture_output=True,
        check=False,
        timeout=60,
        env={
            **os.environ,
            "QREXEC_REMOTE_DOMAIN": source,
            "QREXEC_REQUESTED_TARGET_TYPE": "name",
            "QREXEC_REQUESTED_TARGET": "work",
        },
    )
    assert done.stderr == b""
    reply = parse_reply(done.stdout)
    assert done.returncode == isinstance(reply, Failure)
    return reply


def image(daemon: Daemon) -> Path:
    return daemon.root / "var/lib/qubes/appvms/work/private.img"


def test_content_comes_with_its_size(daemon: Daemon) -> None:
    data = os.urandom(3 * MIB) + bytes(5 * MIB) + b"end"
    assert imported(daemon, b"%d\n" % len(data) + data, "--with-size") == b""
    assert image(daemon).read_bytes() == data
    assert image(daemon).stat().st_blocks * 512 < 4 * MIB, "holes stay holes"
    info = call(daemon.socket, "admin.vm.volume.Info", "work", "private")
    assert b"size=%d\n" % len(data) in info
    # The same size again needs not be told.
    again = bytes(len(data) - 1) + b"x"
    assert imported(daemon, again) == b""
    assert image(daemon).read_bytes() == again


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (b"100\nshort", ("--with-size",), "copied 5 bytes, expected 100"),
        (b"4\nlonger", ("--with-size",), "too much data"),
        (b"", (), "copied 0 bytes"),
        (b"\n", ("--with-size",), "size"),
        (b"-1\n", ("--with-size",), "size"),
        (b"9" * 30 + b"\n", ("--with-size",), "size"),
        (b"4", ("--with-size",), "size"),
    ],
)
def test_what_is_not_whole_leaves_the_volume_as_it_was(
    daemon: Daemon, data: bytes, options: tuple[str, ...], words: str
) -> None:
    before = image(daemon).read_bytes()
    failure = imported(daemon, data, *options)
    assert isinstance(failure, Failure)
    assert words in failure.message
    assert image(daemon).read_bytes() == before
    assert sorted(path.name for path in image(daemon).parent.iterdir() if "import" in path.name) == []


@pytest.mark.parametrize(
    ("source", "volume", "kind"),
    [
        ("bob", "private", "PermissionDenied"),
        ("nobody", "private", "QubesVMNotFoundError"),
        ("alice", "none", "ProtocolError"),
        ("alice", "../x", "ProtocolError"),
    ],
)
def test_who_may_not_does_not(daemon: Daemon, source: str, volume: str, kind: str) -> None:
    """The caller's own right counts, though dom0 asks."""
    failure = imported(daemon, b"1\nx", "--with-size", source=source, volume=volume)
    assert isinstance(failure, Failure)
    assert failure.kind == kind


def test_a_running_qube_is_left_alone(daemon: Daemon) -> None:
    call(daemon.socket, "admin.vm.Start", "work", timeout=60)
    try:
        failure = imported(daemon, b"1\nx", "--with-size")
    finally:
        call(daemon.socket, "admin.vm.Kill", "work", timeout=60)
    assert isinstance(failure, Failure)
    assert failure.kind == "QubesVMNotHaltedError"


def test_nobody_ends_an_import_of_another(daemon: Daemon) -> None:
    path = daemon.root / "run/qubesd.internal.sock"
    call(path, "internal.vm.volume.ImportBegin", "work", "private", b"5", source="alice")
    for source in ("bob", "dom0"):
        with pytest.raises(Exception, match="under way"):
            call(path, "internal.vm.volume.ImportEnd", "work", "private", b"ok", source=source)
    with pytest.raises(Exception, match="because"):
        call(path, "internal.vm.volume.ImportEnd", "work", "private", b"fail\nbecause", source="alice")
