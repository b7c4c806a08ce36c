"""What a running qube's guest announces, on a stream of events over real sockets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import call, connect, send_all
from broker.wire import EventReader, WireEvent, encode_call
from qubesd.api.call import Call
from tests.broker.rig import PATIENCE, Daemon, serving

BLOCK = "admin.vm.device.block"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with serving(tmp_path) as daemon:
        daemon.create("sys-usb", "work")
        for name in ("sys-usb", "work"):
            call(daemon.socket, "admin.vm.Start", name)
        yield daemon


def until(stream: Iterator[WireEvent], last: str) -> list[str]:
    """The device events up to this one, each as ``subject name value``."""
    found: list[str] = []
    for event in stream:
        if event.name.startswith("device-"):
            found.append(" ".join((event.subject, event.name, *event.keys.values())))
            if found[-1].startswith(last):
                return found
    raise AssertionError(found)


def plug_in(daemon: Daemon, port: str) -> Path:
    """A disk in the guest of ``sys-usb``, announced as a whole."""
    made = daemon.root / "made" / port
    made.mkdir(parents=True)
    (made / "desc").write_text("Disk (data)")
    lists = daemon.root / "run/qubesdb/sys-usb/qubes-block-devices"
    lists.mkdir(parents=True, exist_ok=True)
    return made.rename(lists / port)


def test_a_disk_comes_and_goes_while_its_qube_runs(daemon: Daemon) -> None:
    call(daemon.socket, f"{BLOCK}.Assign", "work", "sys-usb+sda", b"mode='auto-attach'")
    with connect(daemon.socket, PATIENCE) as connection:
        send_all(connection, encode_call(Call("admin.Events", "", "dom0", "dom0", b"")))
        reader = EventReader()
        stream = (event for data in iter(lambda: connection.recv(65_536), b"") for event in reader.feed(data))
        assert next(stream).name == "connection-established"
        disk = plug_in(daemon, "sda")
        assert until(stream, "work device-attach") == [
            "sys-usb device-list-change:block",
            "sys-usb device-added:block sys-usb:sda:sda:None",
            "work device-pre-attach:block sys-usb:sda:sda:None {}",
            "work device-attach:block sys-usb:sda:sda:None {}",
        ]
        assert b"sys-usb+sda:sda:None" in call(daemon.socket, f"{BLOCK}.Attached", "work")
        shutil.rmtree(disk)
        assert until(stream, "sys-usb device-removed") == [
            "sys-usb device-list-change:block",
            "work device-pre-detach:block sys-usb:sda",
            "work device-detach:block sys-usb:sda",
            "sys-usb device-removed:block sys-usb:sda",
        ]
        assert call(daemon.socket, f"{BLOCK}.Attached", "work") == b""
        plug_in(daemon, "sda")
        until(stream, "work device-attach")
        call(daemon.socket, "admin.vm.Kill", "sys-usb")
        assert sorted(until(stream, "work device-detach")) == [
            "sys-usb device-removed:block sys-usb:sda",
            "work device-detach:block sys-usb:sda",
            "work device-pre-detach:block sys-usb:sda",
        ]
