"""One call through the broker, by methods of the test's own: the real ones do not go wrong on demand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.streams import Listener
from policy_engine import Loader, MemorySource, PolicyError
from qubesd.api.method import (
    Command,
    DeviceRows,
    EventRows,
    EventStream,
    Mention,
    NameRows,
    QubeRows,
    Reply,
    Rows,
    Text,
    VolumeRows,
)
from qubesd.api.table import METHODS as TABLE
from qubesd.core.core import Core
from qubesd.core.removal import remove
from qubesd.errors import QubesError
from qubesd.events import SystemRestored, TagAdded
from tests.broker.desk import Desk, method, visit


def say(core: Core, command: Command) -> Reply:
    return Text(f"{command.caller.name} {command.target.name} {command.argument} {command.value}")


def break_off(core: Core, command: Command) -> Reply:
    raise KeyError("what a caller must not read")


async def break_off_later(core: Core, command: Command) -> Reply:
    await asyncio.sleep(0)
    raise KeyError("what a caller must not read")


async def fail_later(core: Core, command: Command) -> Reply:
    await asyncio.sleep(0)
    raise QubesError("not now")


def rows(core: Core, command: Command) -> Reply:
    return Rows({"shown": "shown\n", "other": "other\n"})


def qubes(core: Core, command: Command) -> Reply:
    return Rows({name: f"{name}\n" for name in sorted(core.system.qubes)})


def volumes(core: Core, command: Command) -> Reply:
    return Rows({f"{qube}+private": f"{qube}\n" for qube in ("dom0", "hers", "theirs", "gone")})


def devices(core: Core, command: Command) -> Reply:
    """Two of hers, one of them at any port, one of theirs; hers are at two frontends."""
    keys = ("hers+sda:0951", "hers+*:0951", "theirs+sda:0951", "gone+sda:0951")
    return Rows(
        {key: f"{key} seen\n" for key in keys},
        {keys[0]: Mention("theirs", "no frontend\n"), keys[1]: Mention("hers", "wrong\n")},
    )


def stream(core: Core, command: Command) -> Reply:
    return EventStream(None)


OTHER = "00000009-0000-4000-8000-000000000000"

METHODS = {
    one.name: one
    for one in (
        method("test.Say", say),
        method("test.Hidden", say),
        method(
            "test.Parsed", say, parse=lambda core, target, argument, payload: payload.decode("ascii").upper()
        ),
        method("test.Break", break_off),
        method("test.BreakLater", break_off_later),
        method("test.FailLater", fail_later),
        method("test.Names", rows, NameRows("test.Read")),
        method("test.AlwaysNames", rows, NameRows("test.Read", always=True)),
        method("test.Qubes", qubes, QubeRows("test.Say")),
        method("test.Volumes", volumes, VolumeRows("test.Say", by_qube="test.Read")),
        method("test.HiddenVolumes", volumes, VolumeRows("test.Hidden", by_qube="test.Read")),
        method("test.Devices", devices, DeviceRows("test.Read")),
        method("test.Stream", stream, EventRows("test.Stream")),
    )
}


REFUSED = b"2\0PermissionDenied\0\0denied by policy, record 1\0"


@pytest.mark.parametrize(
    ("words", "want", "outcome"),
    [
        pytest.param(("test.Say", "dom0", "x"), b"0\0alice dom0 x None", "ok", id="answered"),
        pytest.param(("test.Say", "hers"), b"0\0alice hers  None", "ok", id="on-a-qube"),
        pytest.param(("test.Parsed", "hers", "", b"x"), b"0\0alice hers  X", "ok", id="with-a-typed-value"),
        pytest.param(("test.Hidden",), REFUSED, "denied", id="denied"),
        pytest.param(("test.Say", "theirs"), REFUSED, "denied", id="not-hers"),
        pytest.param(("test.No", "theirs"), REFUSED, "denied", id="unknown-and-not-allowed"),
        pytest.param(
            ("test.No",), b"2\0ProtocolError\0\0no such method: 'test.No'\0", "ProtocolError", id="unknown"
        ),
        pytest.param(("test.Break",), b"", "broken", id="an-error-inside"),
        pytest.param(("test.BreakLater",), b"", "broken", id="an-error-inside-later"),
        pytest.param(
            ("test.FailLater",), b"2\0QubesException\0\0not now\0", "QubesException", id="an-error-later"
        ),
    ],
)
def test_a_call_has_one_answer_and_one_record(
    tmp_path: Path, words: tuple[Any, ...], want: bytes, outcome: str
) -> None:
    async def call(desk: Desk) -> None:
        assert await desk.take(*words) == want
        (record,) = desk.records()
        assert (record["caller"], record["service"], record["id"]) == ("alice", words[0], 1)
        assert record["outcome"] == outcome
        assert record["decision"] == ("deny" if want == REFUSED else "allow")

    visit(tmp_path, METHODS, call)


def test_an_error_inside_is_in_the_log_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def call(desk: Desk) -> None:
        assert await desk.take("test.Break") == b""
        assert "what a caller must not read" in caplog.text
        assert "must not read" not in desk.audit.read_text()

    visit(tmp_path, METHODS, call)


def test_the_payload_is_never_in_the_audit(tmp_path: Path) -> None:
    async def call(desk: Desk) -> None:
        await desk.take("test.Parsed", "hers", "", b"secret-of-a-caller")
        assert "secret" not in desk.audit.read_text()

    visit(tmp_path, METHODS, call)


def test_a_caller_is_told_the_number_of_its_own_calls_only(tmp_path: Path) -> None:
    async def call(desk: Desk) -> None:
        for source in ("dom0", "hers", "theirs", "dom0"):
            await desk.take("test.Say", source=source)
        assert await desk.take("test.Hidden") == REFUSED
        assert await desk.take("test.Hidden") == REFUSED.replace(b"1", b"2")

    visit(tmp_path, METHODS, call)


@pytest.mark.parametrize(
    ("service", "strict", "want"),
    [
        pytest.param("test.Names", False, b"0\0shown\nother\n", id="names-as-in-stock"),
        pytest.param("test.Names", True, b"0\0shown\n", id="names-strict"),
        pytest.param("test.AlwaysNames", False, b"0\0shown\n", id="names-that-stock-filters"),
        pytest.param("test.Qubes", False, b"0\0dom0\nhers\n", id="qubes"),
        pytest.param("test.Volumes", True, b"0\0hers\n", id="volumes-strict"),
        pytest.param("test.HiddenVolumes", True, b"0\0", id="volumes-of-a-pool-not-to-be-read"),
        pytest.param(
            "test.Devices",
            True,
            b"0\0no frontend\nhers+*:0951 seen\n",
            id="devices-without-a-hidden-frontend",
        ),
    ],
)
def test_rows_are_judged_by_their_guard(tmp_path: Path, service: str, strict: bool, want: bytes) -> None:
    async def call(desk: Desk) -> None:
        assert await desk.take(service) == want
        everything = await desk.take(service, source="dom0")
        assert isinstance(everything, bytes)
        assert everything.count(b"\n") == (2 if "Names" in service else 4)
        assert b"no frontend" not in everything

    visit(tmp_path, METHODS, call, strict=strict)


def test_while_the_policy_does_not_load_every_judged_call_is_denied(tmp_path: Path) -> None:
    async def call(desk: Desk) -> None:
        assert isinstance(desk.policies.now, PolicyError)
        assert await desk.take("test.Say") == REFUSED
        assert await desk.take("test.Say", source="dom0") == b"0\0dom0 dom0  None"
        assert "10.policy:1: column 25: " in desk.records()[0]["reason"]

    visit(tmp_path, METHODS, call, policy="test.Say * alice @anyvm alow\n")


class Ear:
    """What reaches a listener."""

    def __init__(self, listener: bytes | Listener) -> None:
        assert isinstance(listener, Listener)
        self.heard = b""
        self.open = True
        listener.attach(self.hear, self.close)

    def hear(self, message: bytes) -> None:
        self.heard += message

    def close(self) -> None:
        self.open = False


def test_a_failed_write_ends_all_streams(tmp_path: Path) -> None:
    """What they told of did not happen; who listens again and asks knows what is."""

    async def call(desk: Desk) -> None:
        ears = [Ear(await desk.take("test.Stream", source=source)) for source in ("dom0", "alice")]
        desk.core.bus.publish(SystemRestored())
        assert [ear.open for ear in ears] == [False, False]
        desk.core.bus.publish(TagAdded("hers", "late"))
        assert all(b"late" not in ear.heard for ear in ears)

    visit(tmp_path, METHODS, call)


@pytest.mark.parametrize("strict", [False, True])
def test_a_stream_shows_what_its_listener_may_read(tmp_path: Path, strict: bool) -> None:
    async def call(desk: Desk) -> None:
        ear, dom0 = Ear(await desk.take("test.Stream")), Ear(await desk.take("test.Stream", source="dom0"))
        for name in ("hers", "theirs", "dom0"):
            desk.core.bus.publish(TagAdded(name, "plain"))
        told = b"domain-tag-add:plain\0tag\0plain\0\0"
        assert dom0.heard.count(told) == 3
        assert ear.heard.count(told) == 2
        assert b"theirs" not in ear.heard

    visit(tmp_path, METHODS, call, strict=strict)


LAST = b"1\0hers\0domain-remove-from-disk\0\0"


@pytest.mark.parametrize("strict", [False, True])
def test_the_last_of_a_qube_is_told_on_its_own_streams_alone(tmp_path: Path, strict: bool) -> None:
    """Judged in the world in which it was there; the stream stays open and is silent then."""

    async def call(desk: Desk) -> None:
        own = [
            Ear(await desk.take("admin.Events", "hers", source=source)) for source in ("dom0", "alice", "")
        ]
        everything = [Ear(await desk.take("admin.Events", source=source)) for source in ("dom0", "alice")]
        removed = desk.core.system.qubes["hers"]
        await remove(desk.core, desk.core.storage, removed)
        assert [ear.heard.count(LAST) for ear in own] == [1, 1, 1]
        assert [ear.heard.count(b"domain-delete") for ear in everything] == [1, 1]
        assert all(b"from-disk" not in ear.heard for ear in everything)
        assert all(ear.open for ear in own)
        desk.core.change(desk.core.system.with_qube(replace(removed, uuid=OTHER)), ["hers"])
        desk.core.bus.publish(TagAdded("hers", "late"))
        assert all(ear.heard.endswith(LAST) for ear in own)
        assert len(desk.streams.listeners) == len(everything)

    visit(tmp_path, TABLE, call, strict=strict)


def test_a_stream_does_not_take_its_successors_end_for_its_own(tmp_path: Path) -> None:
    """The files of the first could not be removed, and then another qube has its name."""

    async def call(desk: Desk) -> None:
        ear = Ear(await desk.take("admin.Events", "hers", source="dom0"))
        first = desk.core.system.qubes["hers"]
        desk.core.change(desk.core.system.without_qube("hers"), ["hers"])
        desk.core.change(desk.core.system.with_qube(replace(first, uuid=OTHER)), ["hers"])
        await remove(desk.core, desk.core.storage, desk.core.system.qubes["hers"])
        assert LAST not in ear.heard

    visit(tmp_path, TABLE, call)


def test_a_removal_that_failed_ends_the_streams_of_the_qube_too(tmp_path: Path) -> None:
    """It is there as before, so who was listening has to ask again."""

    async def call(desk: Desk) -> None:
        ear = Ear(await desk.take("admin.Events", "hers", source="dom0"))
        desk.core.change(desk.core.system.without_qube("hers"), ["hers"])
        assert ear.open
        desk.core.bus.publish(SystemRestored())
        assert not ear.open

    visit(tmp_path, TABLE, call)


def test_a_new_policy_is_the_streams_policy_too(tmp_path: Path) -> None:
    """Under strict visibility a listener is told which qubes went out of its view."""

    async def call(desk: Desk) -> None:
        ear = Ear(await desk.take("test.Stream"))
        denied = MemorySource(
            {
                "/run/qubes/policy.d/README": b"",
                "/etc/qubes/policy.d/10.policy": b"* * alice dom0 allow target=dom0\n",
            }
        )
        desk.policies.now = Loader(denied).load()
        desk.streams.policy_changed()
        assert ear.heard.endswith(b"1\0\0domain-delete\0vm\0hers\0\0")
        desk.core.bus.publish(TagAdded("hers", "late"))
        assert b"late" not in ear.heard

    visit(tmp_path, METHODS, call, strict=True)
