"""The misc socket of a daemon: what guests announce by dom0's small services."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import call
from broker.wire import Failure
from tests.broker.rig import Daemon, answer, lay_out, serving, start, wait_until_served

CALLS = ("qubes.FeaturesRequest", "qubes.NotifyTools", "qubes.NotifyUpdates")


def announce(root: Path, qube: str, key: str, value: str) -> None:
    place = root / "run/qubesdb" / qube / key
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(value)


def test_what_was_answered_is_on_the_disk(tmp_path: Path) -> None:
    lay_out(tmp_path, "")
    process = start(tmp_path)
    try:
        wait_until_served(tmp_path, process)
        daemon = Daemon(tmp_path, process)
        misc = tmp_path / "run/qubesd.misc.sock"
        daemon.create("work", "other")
        call(daemon.socket, "admin.vm.Start", "work")
        announce(tmp_path, "work", "features-request/os", "Linux")
        announce(tmp_path, "work", "qubes-tools/gui", "1")
        for service, payload in zip(CALLS, (b"", b"", b"7"), strict=True):
            assert answer(misc, service, payload=payload, source="work") == b""
    finally:
        process.kill()
        process.wait()
    (tmp_path / "run/qubesd.sock").unlink()
    with serving(tmp_path) as daemon:
        features = call(daemon.socket, "admin.vm.feature.List", "work").split()
        assert {b"os", b"gui", b"updates-available", b"last-updates-check"} <= set(features)
        assert call(daemon.socket, "admin.vm.feature.List", "other") == b""
        records = [json.loads(line) for line in daemon.audit().splitlines()]
        assert [(one["caller"], one["service"]) for one in records if one["service"] in CALLS] == [
            ("work", service) for service in CALLS
        ]


@pytest.mark.parametrize(
    ("service", "target", "argument", "payload"),
    [
        pytest.param("qubes.FeaturesRequest", "dom0", "", b"os=Linux", id="payload"),
        pytest.param("qubes.FeaturesRequest", "dom0", "x", b"", id="argument"),
        pytest.param("qubes.FeaturesRequest", "other", "", b"", id="of-another"),
        pytest.param("qubes.NotifyTools", "other", "", b"", id="tools-of-another"),
        pytest.param("qubes.NotifyUpdates", "other", "", b"1", id="updates-of-another"),
        pytest.param("qubes.NotifyUpdates", "dom0", "", b"", id="no-number"),
        pytest.param("qubes.NotifyUpdates", "dom0", "", b"1\n2", id="two-lines"),
        pytest.param("admin.vm.List", "dom0", "", b"", id="call-of-another-socket"),
        pytest.param("internal.GetSystemInfo", "dom0", "", b"", id="internal-call"),
    ],
)
def test_what_is_no_call_of_it(
    service: str, target: str, argument: str, payload: bytes, daemon: Daemon
) -> None:
    reply = answer(daemon.root / "run/qubesd.misc.sock", service, target, argument, payload, "work")
    assert isinstance(reply, Failure)
    assert reply.kind == "ProtocolError"


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("door", ["qubesd.sock", "qubesd.internal.sock", "channel"])
def test_no_other_socket_has_them(door: str, service: str, daemon: Daemon) -> None:
    path = daemon.channel("work") if door == "channel" else daemon.root / "run" / door
    reply = answer(path, service, payload=b"1", source="dom0")
    assert isinstance(reply, Failure)
    # A qube is denied what it may not call before it is told that there is no such call.
    assert reply.kind == ("PermissionDenied" if door == "channel" else "ProtocolError")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("root")) as daemon:
        daemon.create("work", "other")
        yield daemon
