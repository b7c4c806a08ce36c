"""The ways in which a C qrexec daemon could be led past its policy: to its fallback, or to a wrong reply.

While a daemon answers, the fallback is never used. Where none does, it decides by the same policy or denies.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.client import connect
from policy_engine import World
from tests.broker.policy_rig import Rig, rig_at
from tests.broker.rig import PATIENCE, ROOT, lay_out, serving
from tests.c.dom0 import (
    APART,
    POLICY,
    TOGETHER,
    Dom0,
    agent_of,
    dom0_of,
    furnish,
    policy_daemon,
    refused,
    rows,
    start_policy_daemon,
)
from tests.c.stock import REFUSED, Stock, Trace, leave_stale, traced
from tools.conformance import tree

SAMPLE = ROOT / "tests/corpora/policy-sample.jsonl.gz"


def test_a_connection_that_stays_silent_is_waited_for(dom0: Dom0) -> None:
    """On the policy socket before the request, and on qubesd's before the header, as the C daemon does."""
    assert rows(dom0.stock.call("alice", "dom0", "admin.vm.List", "-w", "1500"))


def test_silent_connections_are_in_nobodys_way(dom0: Dom0) -> None:
    with ExitStack() as open_connections:
        for _ in range(200):
            for path in (dom0.stock.policy, dom0.daemon.socket):
                open_connections.enter_context(connect(path))
        assert rows(dom0.stock.call("alice", "dom0", "admin.vm.List"))
        refused(dom0.stock.call("bob", "dom0", "admin.vm.List"))


@pytest.mark.parametrize("service", ["a.B", "test.Long+" + 60_000 * "x"], ids=["short", "long"])
@pytest.mark.parametrize("trailing", [1, 4_000, 65_536, 300_000])
def test_bytes_after_the_request_do_not_cost_the_reply(dom0: Dom0, service: str, trailing: int) -> None:
    """A socket that is closed with bytes unread resets the connection, and with it goes the reply."""
    for _ in range(5):
        trace = dom0.stock.ask([("alice", "", "bob", service)], "-x", str(trailing))
        assert trace.names == ["reply", "allowed"], trace


def test_many_at_once_all_get_their_own_answers(dom0: Dom0) -> None:
    """Fifty daemons, each of another qube or call; the fallback, which would be right too, is not used."""
    calls = [
        ("alice", "dom0", "admin.vm.List"),
        ("alice", "bob", "admin.vm.property.Get+name"),
        ("alice", "alice", "admin.vm.property.Get+name"),
        ("bob", "dom0", "admin.vm.List"),
        ("alice", "bob", "test.NoStart"),
    ]
    with ThreadPoolExecutor(50) as pool:
        traces = list(pool.map(lambda words: dom0.stock.call(*words), calls * 20))
    for (source, target, service), trace in zip(calls * 20, traces, strict=True):
        if source == "bob" or service == "test.NoStart":
            refused(trace)
        elif service == "admin.vm.List":
            assert rows(trace).startswith(b"dom0 class=AdminVM ")
        else:
            assert rows(trace) == f"default=False type=str {target}".encode("ascii")


NAMES = ["", "alice", "bob", "far", "dom0", "@adminvm", "@dispvm:", "@default", "@tag:", "uuid:", "@", "$"]
SERVICES = ["test.Ask", "test.Long", "a.B", "admin.vm.List", "+", "=", ":", " ", "\r", "result=allow"]
HOSTILE = st.one_of(
    st.text(st.characters(max_codepoint=255, blacklist_characters="\0\t\n"), max_size=80),
    st.lists(st.sampled_from(NAMES + SERVICES), max_size=4).map("".join),
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), min_size=20, max_size=100))
def test_whatever_a_qube_says_the_reply_is_whole(dom0: Dom0, said: list[tuple[str, str, str]]) -> None:
    dom0.agent.answer = b"allow:bob"
    trace = dom0.stock.ask([("alice", *words) for words in said])
    assert trace.status == 0
    assert trace.names[::2] == ["reply"] * len(said)
    assert set(trace.names[1::2]) <= {"allowed", "refused"}


def test_an_evaluation_is_answered_over_qrexec(dom0: Dom0) -> None:
    """``policy.EvalSimple`` is a service of dom0 that is a socket: header, the caller's words, half-close."""
    for target, want in (("bob", b"result=allow\n"), ("dom0", b"result=deny\n")):
        asked = f"alice\0{target}".encode("ascii")
        trace = dom0.stock.call("alice", "dom0", "policy.EvalSimple+test.Run", payload=asked)
        assert (trace.status, trace.output) == (0, want)
        assert trace.words("service") == [(b"policy.EvalSimple+test.Run alice name dom0",)]


@pytest.mark.parametrize("kind", [TOGETHER, APART])
def test_without_a_policy_that_loads_the_reply_denies(program: Path, tmp_path: Path, kind: str) -> None:
    with dom0_of(program, tmp_path, kind) as dom0:
        (tmp_path / "etc/qubes/policy.d/10-test.policy").write_text("a.B * alice bob alow\n")
        os.kill(dom0.daemon.process.pid, signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        trace = dom0.stock.call("alice", "dom0", "admin.vm.List")
        while "allowed" in trace.names:
            assert "fallback" not in trace.names
            assert time.monotonic() < deadline, "the policy that does not load is not noticed"
            trace = dom0.stock.call("alice", "dom0", "admin.vm.List")
        refused(trace)


def test_without_qubesd_the_reply_denies(program: Path, tmp_path: Path) -> None:
    """The policy daemon is there, and nobody can tell it of the qubes."""
    stock = Stock(program, tmp_path)
    for folder in (stock.policy.parent / "policy.d", stock.services):
        folder.mkdir(parents=True)
    lay_out(tmp_path, "* * @anyvm @anyvm allow\n* * @anyvm @adminvm allow\n")
    with policy_daemon(stock):
        refused(stock.call("alice", "bob", "a.B"))
        refused(stock.call("alice", "dom0", "admin.vm.List"))
        refused(stock.call("dom0", "bob", "a.B"))


DECISIONS = [
    pytest.param("alice", "", "bob", "test.Run", True, id="allow"),
    pytest.param("alice", "", "dom0", "admin.vm.List", True, id="dom0"),
    pytest.param("bob", "", "dom0", "admin.vm.List", False, id="deny"),
    pytest.param("alice", "", "bob", "test.Ask", True, id="ask"),
    pytest.param("alice", "", "", "test.Default", True, id="empty-target"),
    pytest.param("alice", "", "@dispvm", "test.Dispose", True, id="disposable"),
    pytest.param("nobody", "", "bob", "test.Run", False, id="unknown-source"),
    pytest.param("alice", "far", "bob", "test.Relay", False, id="requested-source-is-lost"),
    pytest.param("alice", "", "--path=/", "test.Run", False, id="target-like-an-option"),
    pytest.param("alice", "", "bob", "-h", False, id="service-like-an-option"),
]


@pytest.fixture(scope="module", params=["missing", "stale"])
def deserted(
    request: pytest.FixtureRequest, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stock]:
    """A dom0 with nobody on the policy socket, whose fallback has the same policy and the same user."""
    stock = Stock(program, tmp_path_factory.mktemp("root"))
    with serving(stock.root, POLICY, "trust_qrexec_consent = true\n"), ExitStack() as stack:
        furnish(stock)
        stock.install_fallback(f"--path={stock.root}/etc/qubes/policy.d")
        stack.enter_context(agent_of(stock)).answer = b"allow:bob"
        if request.param == "stale":
            leave_stale(stock.policy)
        yield stock


@pytest.mark.parametrize(("source", "requested", "target", "service", "allowed"), DECISIONS)
def test_without_a_daemon_the_fallback_decides_by_the_same_policy(
    deserted: Stock, source: str, requested: str, target: str, service: str, allowed: bool
) -> None:
    trace = deserted.ask([(source, requested, target, service)])
    assert trace.names == ["lost", "fallback", "allowed" if allowed else "refused"]
    ((_, printed),) = trace.words("fallback")
    assert printed if allowed else printed in (b"", b"result=deny\n")


def test_without_a_daemon_and_without_qubesd_everything_is_denied(program: Path, tmp_path: Path) -> None:
    stock = Stock(program, tmp_path)
    (tmp_path / "policy.d").mkdir()
    (tmp_path / "policy.d/10.policy").write_text("* * @anyvm @anyvm allow\n")
    stock.policy.parent.mkdir(parents=True)
    stock.install_fallback(f"--path={tmp_path}/policy.d")
    trace = stock.call("alice", "bob", "a.B")
    assert (trace.status, trace.names) == (REFUSED, ["lost", "fallback", "refused"])
    assert trace.words("fallback") == [(b"1", b"result=deny\n")]


def test_a_daemon_that_is_killed_and_started_again_loses_no_call(program: Path, tmp_path: Path) -> None:
    """While it is gone the fallback answers the same; when it is back, over the socket that the dead one
    left, the fallback is done with."""
    stock = Stock(program, tmp_path)
    words = [("alice", "bob", "test.Run"), ("bob", "dom0", "admin.vm.List")] * 6
    with serving(tmp_path, POLICY, "trust_qrexec_consent = true\n"):
        furnish(stock)
        stock.install_fallback(f"--path={tmp_path}/etc/qubes/policy.d")
        doomed, _ = start_policy_daemon(stock)
        with ThreadPoolExecutor(4) as pool:
            traces = pool.map(lambda call: stock.call(*call), words)
            doomed.kill()
            doomed.wait(PATIENCE)
            for (source, _, _), trace in zip(words, traces, strict=True):
                assert trace.status == (0 if source == "alice" else REFUSED), trace
        assert "fallback" in stock.call("alice", "bob", "test.Run").names
        with policy_daemon(stock):
            assert "fallback" not in stock.call("alice", "bob", "test.Run").names
            refused(stock.call("bob", "dom0", "admin.vm.List"))
        assert not stock.policy.exists()
        assert "fallback" in stock.call("alice", "bob", "test.Run").names


def test_a_daemon_that_is_killed_while_the_user_is_asked(program: Path, tmp_path: Path) -> None:
    """The question of the dead daemon is lost; the fallback puts it again, and is told what the user says."""
    stock = Stock(program, tmp_path)
    with serving(tmp_path, POLICY, "trust_qrexec_consent = true\n"), ExitStack() as stack:
        furnish(stock)
        stock.install_fallback(f"--path={tmp_path}/etc/qubes/policy.d")
        agent = stack.enter_context(agent_of(stock))
        doomed, _ = start_policy_daemon(stock)
        agent.answer = b"allow:bob"
        agent.think = doomed.kill
        trace = stock.ask([("alice", "", "bob", "test.Ask")])
        doomed.wait(PATIENCE)
    assert (
        trace.names[1:] == ["malformed", "fallback", "allowed"]
        if trace.words("reply")
        else [
            "fallback",
            "allowed",
        ]
    )
    assert len(agent.asked) == 2


PLAIN = re.compile(r"[A-Za-z0-9_.@:-]{0,63}")
PLAIN_SERVICE = re.compile(r"[A-Za-z0-9_.+-]{0,60000}")


def test_no_reply_to_the_corpus_is_malformed(program: Path, tmp_path: Path) -> None:
    """Every question of the sample that a qube could put so, with the answer that its agent gives."""

    async def run() -> int:
        async with rig_at(tmp_path) as rig:
            with gzip.open(SAMPLE, "rt", encoding="utf-8") as found:
                cases = [case for line in found if (case := json.loads(line))["type"] == "eval"]
            return sum([await ask_all(program, rig, case) for case in cases])

    assert asyncio.run(run()) > 1_000


async def ask_all(program: Path, rig: Rig, case: dict[str, Any]) -> int:
    """Ask what C can ask of one case, in one process for each agent's answer. Returns how much that was."""
    rig.judge_by(tree(case), World.from_system_info(case["system_info"]))
    by_answer: dict[str, list[tuple[bytes, str]]] = {}
    for question, want in zip(case["requests"], case["expect"]["results"], strict=True):
        words = [
            question["source"],
            question.get("requested_source", ""),
            question["intended_target"],
            question["service_and_arg"],
        ]
        if "daemon" in want and all(map(PLAIN.fullmatch, words[:3])) and PLAIN_SERVICE.fullmatch(words[3]):
            asked = by_answer.setdefault(question["agent_answer"], [])
            asked.append(("\t".join(words).encode("ascii") + b"\n", want["daemon"]["response"]))
    for answer, questions in by_answer.items():
        rig.agent.say(answer)
        trace = await ask(program, rig.root / "policy.sock", b"".join(line for line, _ in questions))
        assert [reply.decode("ascii") for (reply,) in trace.words("reply")] == [want for _, want in questions]
        assert not {"lost", "malformed", "fallback"} & set(trace.names), (case["id"], trace)
    return sum(map(len, by_answer.values()))


async def ask(program: Path, path: Path, questions: bytes) -> Trace:
    process = await asyncio.create_subprocess_exec(
        program, "-p", path, "-f", "/bin/false", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate(questions)
    assert process.returncode == 0
    return traced(0, output)
