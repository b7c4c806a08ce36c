"""The log: which call a line belongs to, from the socket to libvirt, and nothing in it that is not plain."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.call_id import CALL, begin
from broker.client import call
from broker.logs import JsonLines, TextLines
from broker.wire import Failure
from qubesd.errors import QubesError
from qubesd.virt.connection import Connection
from tests.broker.rig import answer, errors, serving


@pytest.fixture
def number() -> Iterator[int]:
    """That of a call that is being served."""
    token = begin()
    yield CALL.get()
    CALL.reset(token)


def record(message: str, *arguments: object, broken: bool = False) -> logging.LogRecord:
    info = None
    if broken:
        try:
            raise ValueError(f"{message}\nqubesd: INFO: all is well")
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("broker.x", logging.WARNING, __file__, 1, message, arguments, info)


def test_a_line_of_text_outside_of_every_call() -> None:
    assert TextLines("qubesd").format(record("qube %r", "a\x1b")) == r"qubesd: WARNING: qube 'a\x1b'"


def test_a_line_says_which_call_it_belongs_to(number: int) -> None:
    assert TextLines("qubesd").format(record("so")) == f"qubesd: WARNING: call {number}: so"
    line = json.loads(JsonLines().format(record("so")))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "broker.x", "call": number, "message": "so"}


@given(st.text())
def test_whatever_is_said_is_a_line_of_printable_ascii(message: str) -> None:
    for form in (TextLines("qubesd"), JsonLines()):
        assert set(form.format(record("%s", message))) <= set(string.printable) - set("\n\r\t\x0b\x0c")
    assert json.loads(JsonLines().format(record("%s", message)))["message"] == message


def test_a_broken_call_forges_no_line() -> None:
    first, *others = TextLines("qubesd").format(record("x", broken=True)).split("\n")
    assert first == "qubesd: WARNING: x"
    assert others[-1] == "  qubesd: INFO: all is well"
    assert all(line.startswith("  ") for line in others)
    assert "all is well" in json.loads(JsonLines().format(record("x", broken=True)))["exception"]


def test_libvirt_is_asked_in_the_context_of_the_call(number: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(TextLines("qubesd"))

    async def story() -> None:
        connection = Connection("test:///default")
        await connection.open(lambda _: None, lambda: None)
        try:
            assert await connection.ask(lambda _: CALL.get()) == number
            with pytest.raises(QubesError):
                await connection.ask(lambda handle: handle.lookupByName("gone"))
        finally:
            await connection.close()

    asyncio.run(story())
    assert f"qubesd: WARNING: call {number}: hypervisor: " in caplog.text


@pytest.mark.parametrize("verb", ["Kill", "Shutdown"])
def test_what_follows_from_news_that_a_call_waits_for_has_its_number(tmp_path: Path, verb: str) -> None:
    """The hypervisor tells that the domain is gone, and a volume cannot be committed."""
    with serving(tmp_path, "", 'log_format = "json"') as daemon:
        daemon.create("work")
        call(daemon.socket, "admin.vm.Start", "work")
        working = tmp_path / "var/lib/qubes/appvms/work/private-dirty.img"
        working.unlink()
        working.mkdir()
        call(daemon.socket, f"admin.vm.{verb}", "work")
        while b"power_state=Halted" not in call(daemon.socket, "admin.vm.CurrentState", "work"):
            pass
        audit = [json.loads(line) for line in daemon.audit().splitlines()]
    (number,) = [one["call"] for one in audit if one["service"] == f"admin.vm.{verb}"]
    lines: list[dict[str, Any]] = [json.loads(line) for line in errors(tmp_path).splitlines()]
    assert [line["call"] for line in lines if "private" in line["message"]][:1] == [number]


def test_the_log_and_the_audit_have_the_same_number_and_the_caller_has_another(tmp_path: Path) -> None:
    policy = "admin.vm.tag.Set * alice alice allow target=dom0\n"
    with serving(tmp_path, policy, 'log_format = "json"') as daemon:
        daemon.create("alice")
        store = tmp_path / "var/lib/qubes/qubes.xml"
        seen = store.stat()
        os.utime(store, (1, 1))
        failed = answer(daemon.channel("alice"), "admin.vm.tag.Set", "alice", "x")
        os.utime(store, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        refused = answer(daemon.channel("alice"), "admin.vm.Start", "alice")
        audit = [json.loads(line) for line in daemon.audit().splitlines()]
    assert isinstance(failed, Failure)
    assert "changed by someone else" in failed.message
    assert isinstance(refused, Failure)
    assert "2" in refused.message
    (made,) = [one for one in audit if one["service"] == "admin.vm.tag.Set"]
    lines: list[dict[str, Any]] = [json.loads(line) for line in errors(tmp_path).splitlines()]
    assert [line["call"] for line in lines if "was not saved" in line["message"]] == [made["call"]]
    assert made["id"] == 1
    assert [one["call"] for one in audit] == sorted({one["call"] for one in audit})
    assert {line["call"] for line in lines if "ready" in line["message"]} == {None}
