"""What peers of the policy sockets may try: every shape of a request, none of which gets more than it may."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.audit import AuditLog
from broker.deciding.questions import MAX_LINE, MAX_REQUEST, LinesReader, Question, QuestionError
from policy_engine import QubeFacts
from tests.broker.policy_rig import Rig, lines, rig_at

WORK = QubeFacts(
    "work", "11111111-1111-1111-1111-111111111111", "AppVM", frozenset({"guivm-gui"}), guivm="dom0"
)
MAIL = QubeFacts("mail", "22222222-2222-2222-2222-222222222222", "AppVM", frozenset({"guivm-gui"}))
POLICY = "a.Allow * work mail allow\na.Ask * work @anyvm ask\na.Loud * work mail allow notify=yes\n"
ALLOWED = (
    b"user=DEFAULT\nresult=allow\ntarget=mail\ntarget_uuid=uuid:22222222-2222-2222-2222-222222222222\n"
    b"autostart=True\nrequested_target=mail"
)
ASK = lines("work", "mail", "a.Allow")


def with_rig(folder: Path, act: Callable[[Rig], Awaitable[None]]) -> None:
    async def run() -> None:
        async with rig_at(folder) as rig:
            rig.policy(POLICY, WORK, MAIL)
            await act(rig)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("request_bytes", "end", "want"),
    [
        pytest.param(ASK, False, ALLOWED, id="as-the-c-daemon-sends-it"),
        pytest.param(
            lines("work", "mail", "a.Allow", requested_source=""), False, ALLOWED, id="empty-is-absent"
        ),
        pytest.param(ASK[:-1], True, ALLOWED, id="ended-by-end-of-file"),
        pytest.param(ASK[:-2], True, ALLOWED, id="last-line-cut"),
        pytest.param(ASK + b"source=dom0\n\n", False, ALLOWED, id="what-follows-is-not-looked-at"),
        pytest.param(lines("work", "mail", "a.Other"), False, b"result=deny", id="deny"),
        pytest.param(
            lines("work", "mail", "a.Allow", just_evaluate="yes"), False, b"result=allow", id="evaluate"
        ),
        pytest.param(lines("work", "mail", "a.Allow\r"), False, b"result=deny", id="cr-stays"),
        pytest.param(b"", True, b"", id="nothing"),
        pytest.param(b"\n", False, b"", id="an-empty-line-alone"),
        pytest.param(b"source=work\n" + ASK, False, b"", id="repeated"),
        pytest.param(b"domain_id=1\n" + ASK, False, b"", id="old-key"),
        pytest.param(b"just_evaluate=Yes\n" + ASK, False, b"", id="neither-yes-nor-no"),
        pytest.param(b"nonsense\n" + ASK, False, b"", id="no-equals"),
        pytest.param(b"source=work\nintended_target=mail\n\n", False, b"", id="missing"),
        pytest.param(ASK.replace(b"mail", b"m\xe4il"), False, b"", id="not-ascii"),
        pytest.param(lines("work", "mail", "a" * (MAX_LINE - 16)), False, b"result=deny", id="longest-line"),
        pytest.param(lines("work", "mail", "a" * (MAX_LINE - 15)), False, b"", id="line-too-long"),
        pytest.param(b"x" * (MAX_REQUEST + 1), False, b"", id="without-end"),
    ],
)
def test_request(tmp_path: Path, request_bytes: bytes, end: bool, want: bytes) -> None:
    async def act(rig: Rig) -> None:
        try:
            answer = await rig.ask(request_bytes, end)
        except ConnectionError:
            # Only where there was more than any request has.
            assert len(request_bytes) > MAX_REQUEST
            answer = b""
        assert answer == want

    with_rig(tmp_path, act)


@pytest.mark.parametrize(
    ("request_bytes", "silent"),
    [pytest.param(b"", 1, id="nothing"), pytest.param(b"s", 0, id="a-byte")],
)
def test_who_says_nothing_is_counted_and_not_complained_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request_bytes: bytes, silent: int
) -> None:
    async def act(rig: Rig) -> None:
        for place in ("policy.EvalSimple", "policy.EvalGUI", "policy.sock"):
            rig.sockets.silent = 0
            assert await rig.ask(request_bytes, True, place) == b""
            assert rig.sockets.silent == silent
        assert ("closed without an answer" in caplog.text) is (silent == 0)

    with_rig(tmp_path, act)


@pytest.mark.parametrize(
    ("name", "header", "source", "target", "want"),
    [
        pytest.param(
            "Simple", "policy.EvalSimple+a.Allow+x q", "work", "mail", b"result=allow\n", id="allow"
        ),
        pytest.param(
            "Simple", "policy.EvalSimple+a.Ask q name dom0", "work", "mail", b"result=allow\n", id="ask"
        ),
        pytest.param("Simple", "policy.EvalSimple+a.No q", "work", "mail", b"result=deny\n", id="deny"),
        pytest.param("Simple", "policy.EvalGUI+a.Allow q", "work", "mail", b"", id="another-service"),
        pytest.param("Simple", "policy.EvalSimple q", "work", "mail", b"", id="none-asked"),
        pytest.param("Simple", "policy.EvalSimple++x q", "work", "mail", b"", id="begins-with-plus"),
        pytest.param("Simple", "policy.EvalSimple+a.Allow q", "work", "uuid:1", b"", id="colon"),
        pytest.param("Simple", "policy.EvalSimple+a.Allow q", "w" * 32, "mail", b"", id="source-too-long"),
        pytest.param("Simple", "policy.EvalSimple+a.Allow q", "work", "m" * 64, b"", id="target-too-long"),
        pytest.param("Simple", "policy.EvalSimple+a.Allow q", "work", "mail\0", b"", id="further-nul"),
        pytest.param("Simple", "policy.EvalSimple+a.Allow q", "work", "", b"", id="no-target"),
        pytest.param("GUI", "policy.EvalGUI+a.Allow gui", "work", "mail", b"result=allow\n", id="on-screen"),
        pytest.param("GUI", "policy.EvalGUI+a.Allow spy", "work", "mail", b"", id="not-on-screen"),
        pytest.param("GUI", "policy.EvalGUI+a.Allow gui", "work", "@default", b"", id="keyword"),
    ],
)
def test_evaluation(tmp_path: Path, name: str, header: str, source: str, target: str, want: bytes) -> None:
    async def act(rig: Rig) -> None:
        request = f"{header}\0{source}\0{target}".encode()
        assert await rig.ask(request, True, f"policy.Eval{name}") == want
        await rig.settled()
        assert rig.agent.collect() == []

    with_rig(tmp_path, act)


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        pytest.param(b"allow:mail", True, id="yes"),
        pytest.param(b"allow:mail\n", False, id="a-line-end"),
        pytest.param(b"allow:vault", False, id="not-a-choice"),
        pytest.param(b"deny", False, id="no"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"allow:" + b"x" * 100_000, False, id="endless"),
        pytest.param(b"allow:\xff", False, id="not-ascii"),
    ],
)
def test_only_an_exact_yes_is_one(tmp_path: Path, answer: bytes, allowed: bool) -> None:
    async def act(rig: Rig) -> None:
        rig.agent.answer = answer
        assert await rig.ask(lines("work", "mail", "a.Ask+x")) == (ALLOWED if allowed else b"result=deny")
        assert rig.agent.headers[0] == b"policy.Ask dom0 name dom0"
        icons = {"dom0": "", "mail": "", "work": ""}
        question = {"source": "work", "service": "a.Ask", "argument": "+x", "targets": ["mail"]}
        assert rig.agent.raw[0] == json.dumps({**question, "default_target": "", "icons": icons}).encode()

    with_rig(tmp_path, act)


def test_no_agent_denies_and_does_not_hold_up_an_answer(tmp_path: Path) -> None:
    async def act(rig: Rig) -> None:
        for service in ("policy.Ask", "policy.Notify"):
            (tmp_path / service).unlink()
        assert await rig.ask(lines("work", "mail", "a.Ask")) == b"result=deny"
        assert await rig.ask(lines("work", "mail", "a.Loud")) == ALLOWED

    with_rig(tmp_path, act)


def test_an_admin_call_that_is_refused_here_is_in_the_audit(tmp_path: Path) -> None:
    """It never reaches ``qubesd.sock``, where those that are allowed are recorded."""
    audit = AuditLog(tmp_path / "audit", 1_000_000, 1)

    async def act(rig: Rig) -> None:
        rig.refused = audit.refused
        rig.policy(f"{POLICY}admin.Get * work mail allow\nadmin.Set * work @anyvm deny\n", WORK, MAIL)
        for service in ("a.Other", "admin.Get", "admin.Set+x"):
            await rig.ask(lines("work", "mail", service))
        await rig.ask(lines("work", "mail", "admin.Set", just_evaluate="yes"))
        await rig.ask(lines("work", "mail", "admin.Other\x1b", requested_source="far"))
        rig.policy("admin.Set * work @anyvm alow\n", WORK, MAIL)
        await rig.ask(lines("work", "mail", "admin.Set"))

    with_rig(tmp_path, act)
    audit.close()
    records = [json.loads(line) for line in (tmp_path / "audit").read_text("ascii").splitlines()]
    assert {
        (one["caller"], one["target"], one["decision"], one["outcome"], one["id"]) for one in records
    } == {("work", "mail", "deny", "denied", 0)}
    assert [(one["service"], one["argument"]) for one in records] == [
        ("admin.Set", "x"),
        ("admin.Other\x1b", ""),
        ("admin.Set", ""),
    ]
    assert records[0]["rule"] == "/etc/qubes/policy.d/10-test.policy:5"
    assert records[1]["reason"].endswith("called for 'far'")
    assert "10-test.policy:1: column" in records[2]["reason"]


def test_hundreds_of_silent_peers_change_nothing_and_leak_nothing(tmp_path: Path) -> None:
    async def act(rig: Rig) -> None:
        before = len(os.listdir("/proc/self/fd"))
        silent = [await asyncio.open_unix_connection(tmp_path / "policy.sock") for _ in range(300)]
        assert await rig.ask(ASK) == ALLOWED
        for _, writer in silent:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in silent))
        while rig.sockets.connections:
            await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == before

    with_rig(tmp_path, act)


LINES = ["source=work", "intended_target=mail", "service_and_arg=a.Allow", "requested_source=", "", "x=y"]
SWITCHES = ["just_evaluate=yes", "assume_yes_for_ask=no", "just_evaluate=maybe"]
SCRAPS = [b"source", b"=", b"\0", b"\xff", b"\r\n", b"\n"]
PIECES = st.sampled_from([*(f"{line}\n".encode() for line in (*LINES, *SWITCHES)), *SCRAPS])


def read(data: bytes, cuts: list[int]) -> Question | str:
    reader = LinesReader()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    try:
        for start, end in pairwise(places):
            if reader.feed(data[start:end]):
                break
        return reader.question()
    except QuestionError as error:
        return str(error)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=9), max_size=9), st.lists(st.integers(0, 500), max_size=5))
def test_how_a_request_is_cut_makes_no_difference(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    whole = read(data, [])
    assert read(data, cuts) == whole
