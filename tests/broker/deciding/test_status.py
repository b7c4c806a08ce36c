"""``qubes-policy`` where a stock qubesd keeps the qubes: who decides and by what, and why."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.authoring.tool import STATUS_PATIENCE
from broker.deciding.status_socket import StatusSpeaker
from broker.places import METRICS_SOCKET, STATUS_SOCKET, TRIAL
from broker.short_answers import MAX_CONNECTIONS, MAX_REQUEST, ShortAnswers
from broker.sockets import Access, short_path
from policy_engine import load
from tests.broker.alone_rig import PATIENCE, Alone, lay_out, qubes_policy, right, start, until_true
from tests.broker.deciding.test_daemon import OPEN, POLICY, closing, exception, tell
from tests.broker.policy_rig import exchange
from tests.broker.rig import serving

QUESTION = b"internal.PolicyStatus+ dom0 name dom0\0"


def test_the_daemon_tells_what_it_decides_by(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        # What a stock qubesd says to a call that it does not know.
        daemon.qubesd.manner = closing
        status, out, err = await daemon.tool("status", "--json")
        (told,) = json.loads(out)["daemons"]
        assert status == 0
        assert (told["program"], told["pid"]) == ("qrexec-policy-daemon", daemon.process.pid)
        assert (told["in_force"], told["rules"], told["error"]) == (True, 2, None)
        policy = load(directories=[str(tmp_path / "etc/qubes/policy.d")])
        assert told["digest"] == policy.digest
        assert told["files"] == ["etc/qubes/policy.d/10-test.policy"]
        assert abs(told["started"] - time.time()) < PATIENCE
        assert told["sockets"] == [
            "run/qubes/policy.sock",
            "etc/qubes-rpc/policy.EvalSimple",
            "etc/qubes-rpc/policy.EvalGUI",
        ]
        assert list(json.loads(out)["silent"]) == ["run/qubesd.internal.sock"]
        assert "a stock qubesd does not know it" in err
        assert daemon.qubesd.wrong.pop() == QUESTION

        daemon.qubesd.manner = right
        assert await daemon.decides(*OPEN) == "allow"
        daemon.write("x * * * alow\n", "20-mine.policy")
        await daemon.comes_to("deny", *OPEN)
        daemon.qubesd.manner = closing
        status, out, _ = await daemon.tool("status")
        assert status == 1
        shown = out.splitlines()
        assert shown[0] == "policy   none: every judged call is denied"
        assert shown[2].startswith(f"used by  qrexec-policy-daemon, process {daemon.process.pid}, started ")
        assert shown[3] == "asked on run/qubes/policy.sock"
        mine = "etc/qubes/policy.d/20-mine.policy:1: column 9: expected allow, ask or deny, found 'alow'"
        assert shown[6] == f"error    {mine}"
        assert daemon.qubesd.wrong.pop() == QUESTION

    tell(tmp_path, story)


def test_two_daemons_are_both_told_of(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, "trust_qrexec_consent = true\n") as qubesd:
        lay_out(tmp_path)
        other = start(tmp_path)
        try:
            deadline = time.monotonic() + PATIENCE
            while not (tmp_path / "run/qubes/policy.sock").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            status, out, _ = asyncio.run(qubes_policy(tmp_path, "status", "--json"))
            assert status == 0
            behind, in_front = json.loads(out)["daemons"]
            assert (behind["program"], behind["pid"], behind["sockets"]) == ("qubesd", qubesd.process.pid, [])
            assert (in_front["program"], in_front["pid"]) == ("qrexec-policy-daemon", other.pid)
            assert behind["digest"] == in_front["digest"]
            _, out, _ = asyncio.run(qubes_policy(tmp_path, "status"))
            assert "asked on no socket of its own: another policy daemon is in front" in out
            assert out.count("policy   in force") == 2
        finally:
            other.terminate()
            assert other.wait(PATIENCE) == 0


def nobody(root: Path) -> None:
    """Nothing is there."""


def died(root: Path) -> None:
    for name in ("policy.sock", STATUS_SOCKET):
        with socket.socket(socket.AF_UNIX) as stale, short_path(root / "run/qubes" / name) as path:
            stale.bind(path)


@pytest.mark.parametrize("before", [nobody, died], ids=["nothing-there", "died"])
def test_that_none_runs_is_said(tmp_path: Path, before: Callable[[Path], None]) -> None:
    lay_out(tmp_path)
    before(tmp_path)
    status, out, err = asyncio.run(qubes_policy(tmp_path, "status"))
    assert (status, out) == (2, "")
    assert err == (
        "qubes-policy: run/qubes/policy.sock: nobody answers, neither qubesd nor qrexec-policy-daemon runs: "
        "each call is decided by qrexec-policy-exec, which reads the files anew\n"
    )
    status, out, _ = asyncio.run(qubes_policy(tmp_path, "status", "--json"))
    assert (status, json.loads(out)) == (2, {"daemons": [], "silent": {}})


def test_that_the_stock_daemon_runs_is_said(tmp_path: Path) -> None:
    lay_out(tmp_path)
    with socket.socket(socket.AF_UNIX) as stock:
        with short_path(tmp_path / "run/qubes/policy.sock") as path:
            stock.bind(path)
        stock.listen()
        status, _, err = asyncio.run(qubes_policy(tmp_path, "status"))
    assert status == 2
    assert "who listens does not tell what it decides by: the stock daemon, or ours before it runs" in err


def test_a_daemon_that_hangs_is_waited_for_no_longer_than_is_said(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "run" / TRIAL).mkdir()
    places = [tmp_path / "run/qubesd.internal.sock", tmp_path / "run" / TRIAL / STATUS_SOCKET]
    mute = [socket.socket(socket.AF_UNIX) for _ in places]
    for one, place in zip(mute, places, strict=True):
        with short_path(place) as path:
            one.bind(path)
        one.listen()
    started = time.monotonic()
    status, _, err = asyncio.run(qubes_policy(tmp_path, "status"))
    assert status == 2
    # One after the other they would take twice as long.
    assert STATUS_PATIENCE <= time.monotonic() - started < 2 * STATUS_PATIENCE
    for place in places:
        assert f"qubes-policy: {place.relative_to(tmp_path)}: no answer within {STATUS_PATIENCE:g} s\n" in err
    for one in mute:
        one.close()


async def unanswered(place: Path, request: bytes) -> bool:
    """Whether it was closed without a byte, whether or not all that was sent was read."""
    try:
        return await exchange(place, request, end=True) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(QUESTION[:-1], id="cut"),
        pytest.param(b"\0" * 10, id="nul"),
        pytest.param(b"internal.GetSystemInfo+ dom0 name dom0\0", id="another-call"),
        pytest.param(b"internal.PolicyStatus+x dom0 name dom0\0", id="argument"),
        pytest.param(b"internal.PolicyStatus+ dom0 name work\0", id="target"),
        pytest.param(QUESTION + b"payload", id="payload"),
        pytest.param(b"a" * (MAX_REQUEST + 1), id="too-long"),
    ],
)
def test_what_is_no_question_gets_no_byte(tmp_path: Path, request_: bytes) -> None:
    async def run() -> None:
        place = tmp_path / "status"
        answering = ShortAnswers(place, StatusSpeaker(lambda: "{}"))
        answering.open(Access(0o600))
        try:
            assert await unanswered(place, request_)
            assert await exchange(place, QUESTION, end=True) == b"0\0{}"
        finally:
            answering.close()
        assert not place.exists()

    asyncio.run(run())


def test_who_connects_and_stays_is_bounded(tmp_path: Path) -> None:
    async def run() -> None:
        place = tmp_path / "status"
        answering = ShortAnswers(place, StatusSpeaker(lambda: "{}"))
        answering.open(Access(0o600))
        before = len(os.listdir("/proc/self/fd"))
        ends = []
        for _ in range(MAX_CONNECTIONS):
            with short_path(place) as name:
                ends.append(await asyncio.open_unix_connection(name))
        await until_true(lambda: asyncio.sleep(0, len(answering.connections) == MAX_CONNECTIONS))
        assert await unanswered(place, QUESTION)
        reader, writer = ends.pop()
        writer.close()
        await until_true(lambda: asyncio.sleep(0, len(answering.connections) < MAX_CONNECTIONS))
        assert await exchange(place, QUESTION, end=True) == b"0\0{}"
        answering.close()
        for reader, writer in ends:
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        await until_true(lambda: asyncio.sleep(0, len(os.listdir("/proc/self/fd")) < before))

    asyncio.run(run())


def test_explain_asks_a_stock_qubesd(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        daemon.qubesd.qube("relay", 3)
        daemon.qubesd.qube("far", 4, type="RemoteVM", relayvm="relay", tags=["red"])
        status, out, _ = await daemon.tool("explain", *("work", "my.Open", "vault"))
        assert status == 0
        assert out.startswith("allow  work calls my.Open on vault; it goes to vault\n")
        call = ("relay", "my.Open", "vault")
        _, out, _ = await daemon.tool("explain", *call, "--requested-source", "far")
        assert out.startswith("allow  relay for far calls my.Open on vault; it goes to vault\n")
        _, out, _ = await daemon.tool("explain", *call)
        assert out.startswith("deny  relay calls my.Open on vault: no rule matches")
        daemon.qubesd.manner = exception
        status, _, err = await daemon.tool("explain", *call)
        assert status == 2
        assert "internal.GetSystemInfo is not answered: QubesException" in err

    tell(tmp_path, story)


def test_without_its_status_socket_it_decides_all_the_same(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "run/qubes" / STATUS_SOCKET).write_text("mine")

    async def story(daemon: Alone) -> None:
        assert await daemon.decides(*OPEN) == "allow"
        assert f"{STATUS_SOCKET}: this is in the way of a socket" in daemon.said()

    tell(tmp_path, story)
    assert (tmp_path / "run/qubes" / STATUS_SOCKET).read_text() == "mine"


def test_it_tells_figures_of_what_it_decides(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        assert await daemon.decides(*OPEN) == "allow"
        answer = await exchange(
            tmp_path / "run/qubes" / METRICS_SOCKET, b"GET /metrics HTTP/1.0\r\n\r\n", end=False
        )
        assert b'qubesd_qrexec_answers_total{answer="allow"} 1\n' in answer
        assert b"qubesd_policy_in_force 1\n" in answer

    tell(tmp_path, story)
