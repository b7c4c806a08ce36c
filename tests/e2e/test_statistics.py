"""Statistics over real sockets: who sees whose, and when a stream ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.client import call, connect, send_all
from broker.wire import EventReader, Failure, WireEvent, encode_call
from qubesd.api.call import Call
from tests.broker.rig import PATIENCE, Daemon, answer, serving

POLICY = """\
admin.vm.Stats * alice @adminvm        allow target=dom0
admin.vm.Stats * alice @tag:mine       allow target=dom0
admin.vm.Stats * alice @tag:no-events  allow target=dom0
admin.Events   * alice @tag:no-events  deny
admin.Events   * alice @anyvm          allow target=dom0
"""
STATS = "admin.vm.Stats"
KEYS = (
    "memory_kb memory_assigned_total memory_assigned_usable memory_with_swap_used cpu_time cpu_usage"
    " online_vcpus"
)


@contextmanager
def watching(path: Path, target: str) -> Iterator[socket.socket]:
    with connect(path, PATIENCE) as connection:
        send_all(connection, encode_call(Call(STATS, "", "dom0", target, b"")))
        yield connection


def events(connection: socket.socket) -> Iterator[WireEvent]:
    """What comes until the stream ends."""
    reader = EventReader()
    while data := connection.recv(65_536):
        yield from reader.feed(data)


@pytest.fixture
def daemon(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    with serving(tmp_path, POLICY, f'visibility = "{request.param}"\n') as daemon:
        daemon.create("alice", "work", "mute", "secret", tags={"work": "mine", "mute": "no-events"})
        call(daemon.socket, "admin.property.Set", "dom0", "stats_interval", b"1")
        for name in ("work", "mute", "secret"):
            call(daemon.socket, "admin.vm.Start", name)
        yield daemon


@pytest.mark.parametrize(
    ("daemon", "hers"),
    [pytest.param("strict", {"work"}, id="strict"), pytest.param("stock", {"work", "secret"}, id="stock")],
    indirect=["daemon"],
)
def test_a_caller_sees_those_that_it_may_read(daemon: Daemon, hers: set[str]) -> None:
    """In stock, events alone decide; under strict visibility the call on the qube itself does as well."""
    with (
        watching(daemon.channel("alice"), "dom0") as hers_stream,
        watching(daemon.socket, "dom0") as all_of_it,
    ):
        told = [event for _, event in zip(range(1 + 2 * len(hers)), events(hers_stream), strict=False)]
        assert [told[0].subject, told[0].name] == ["", "connection-established"]
        assert {event.subject for event in told[1:]} == hers
        assert {event.name for event in told[1:]} == {"vm-stats"}
        assert " ".join(told[1].keys) == KEYS
        everything = {event.subject for _, event in zip(range(5), events(all_of_it), strict=False)}
        assert everything == {"", "dom0", "mute", "secret", "work"}


@pytest.mark.parametrize("daemon", ["strict"], indirect=True)
def test_the_stream_of_one_qube_ends_with_its_run(daemon: Daemon) -> None:
    with watching(daemon.channel("alice"), "work") as stream:
        told = events(stream)
        assert [next(told).name, next(told).subject] == ["connection-established", "work"]
        call(daemon.socket, "admin.vm.Kill", "work")
        assert {event.subject for event in told} <= {"work"}
    refused = answer(daemon.channel("alice"), STATS, "work")
    assert isinstance(refused, Failure)
    assert refused.kind == "QubesVMNotRunningError"
