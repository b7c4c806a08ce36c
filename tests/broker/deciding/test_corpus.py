"""Recorded answers of the original policy daemon, asked for over the real sockets."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol

import pytest

from policy_engine import PolicyError, World, load
from tests.broker.alone_rig import Alone, alone, until_true
from tests.broker.policy_rig import Agent, Rig, exchange, lines, rig_at
from tools.conformance import tree

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "tests/corpora/policy-sample.jsonl.gz"
CORPUS = Path(os.environ.get("QUBES_CORPORA", ROOT.parent / "shared/corpora")) / "policy/eval.jsonl.gz"
CHUNKS = 4

DIRECTORIES = ("/run/qubes/policy.d", "/etc/qubes/policy.d")
STATUS = b"internal.PolicyStatus+ dom0 name dom0\0"

ASKED_SOURCE = re.compile(r"[A-Za-z0-9@_.-]{1,31}")
ASKED_TARGET = re.compile(r"[A-Za-z0-9@_.-]{1,63}")


def cases(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as found:
        for line in found:
            case = json.loads(line)
            if case["type"] == "eval":
                yield case


class Daemon(Protocol):
    """Whatever has policy sockets and asks this agent."""

    agent: Agent

    async def ask(self, untrusted_request: bytes, end: bool = False, socket: str = "policy.sock") -> bytes:
        """What comes back on this socket."""

    async def told(self, calls: int) -> None:
        """Wait until the agent was called so often."""


class InProcess:
    def __init__(self, rig: Rig) -> None:
        self.agent = rig.agent
        self.ask = rig.ask
        self._rig = rig

    async def told(self, calls: int) -> None:
        await self._rig.settled()


class AsProcess:
    """``qrexec-policy-daemon``, which reads its policy from files and its qubes from a stock qubesd."""

    def __init__(self, daemon: Alone) -> None:
        self.agent = daemon.agent
        self._daemon = daemon

    async def judge_by(self, case: dict[str, Any]) -> None:
        """Write the case's policy and wait until it is in force, or known to be flawed."""
        root = self._daemon.root
        directories = [root / path.lstrip("/") for path in DIRECTORIES]
        for directory in directories:
            rmtree(directory)
            directory.mkdir()
        for path in case.get("dirs", ()):
            (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for path, content in case["files"].items():
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(
                base64.b64decode(content["b64"]) if isinstance(content, dict) else content.encode()
            )
        try:
            wanted: object = load(directories=[str(directory) for directory in directories]).digest
        except PolicyError as error:
            wanted = error.kind, error.file, error.line
        await until_true(self._decides_by, wanted)
        self._daemon.qubesd.domains = case["system_info"]["domains"]

    async def _decides_by(self) -> object:
        told = await exchange(self._daemon.root / "run/qubes/policy-status.sock", STATUS, end=True)
        status = json.loads(told.removeprefix(b"0\0"))
        error = status["error"]
        return status["digest"] if error is None else (error["kind"], error["file"], error["line"])

    async def ask(self, untrusted_request: bytes, end: bool = False, socket: str = "policy.sock") -> bytes:
        folder = "run/qubes" if socket == "policy.sock" else "etc/qubes-rpc"
        return await exchange(self._daemon.root / folder / socket, untrusted_request, end)

    async def told(self, calls: int) -> None:
        # One that is too many is found with the next question.
        async def enough() -> bool:
            return len(self.agent.calls) >= calls

        await until_true(enough)


def fits_process(case: dict[str, Any]) -> bool:
    """Whether the case can be told with two directories anywhere, and an agent in dom0."""
    screens = {
        call["guivm"]
        for want in case["expect"]["results"]
        for call in want.get("daemon", {"agent_calls": ()})["agent_calls"]
    }
    written = json.dumps(case["files"])
    return (
        all(path.startswith(DIRECTORIES) for path in (*case["files"], *case.get("dirs", ())))
        and not any(word in written for word in (" /etc/", " /run/", "!compat-4.0"))
        and not (case.get("symlinks") or case.get("missing_dirs"))
        and screens <= {"dom0"}
    )


async def check(rig: Rig, case: dict[str, Any]) -> int:
    """Ask all of a case. Returns how many answers were compared."""
    rig.judge_by(tree(case), World.from_system_info(case["system_info"]))
    return await check_all(InProcess(rig), case)


async def check_all(daemon: Daemon, case: dict[str, Any]) -> int:
    asked = zip(case["requests"], case["expect"]["results"], strict=True)
    return sum([await check_one(daemon, question, want, case["id"]) for question, want in asked])


async def check_one(rig: Daemon, question: dict[str, Any], want: dict[str, Any], name: str) -> int:
    source, target, service = (question[key] for key in ("source", "intended_target", "service_and_arg"))
    more = {"requested_source": question["requested_source"]} if "requested_source" in question else {}
    compared = 0
    if "daemon" in want:
        rig.agent.say(question["agent_answer"])
        answer = await rig.ask(lines(source, target, service, **more))
        assert answer.decode("ascii") == want["daemon"]["response"], (name, question)
        await rig.told(len(want["daemon"]["agent_calls"]))
        calls = rig.agent.collect()
        for call in calls:
            call["params"].pop("icons", None)
        assert calls == want["daemon"]["agent_calls"], (name, question)
        compared += 1
    for key, switches in (
        ("just_evaluate", {"just_evaluate": "yes"}),
        ("just_evaluate_assume_yes", {"just_evaluate": "yes", "assume_yes_for_ask": "yes"}),
    ):
        if key in want:
            answer = await rig.ask(lines(source, target, service, **more, **switches))
            assert answer.decode("ascii") == f"result={want[key]}", (name, question, key)
            compared += 1
    if "just_evaluate_assume_yes" in want and askable(question):
        header = f"policy.EvalSimple+{service} anybody\0"
        answer = await rig.ask(f"{header}{source}\0{target}".encode(), end=True, socket="policy.EvalSimple")
        assert answer.decode("ascii") == f"result={want['just_evaluate_assume_yes']}\n", (name, question)
        compared += 1
    assert rig.agent.collect() == []
    return compared


def askable(question: dict[str, Any]) -> bool:
    """Whether ``policy.EvalSimple`` can be asked this."""
    service = question["service_and_arg"]
    return (
        "requested_source" not in question
        and ASKED_SOURCE.fullmatch(question["source"]) is not None
        and ASKED_TARGET.fullmatch(question["intended_target"]) is not None
        and service.isascii()
        and service[:1] not in ("", "+")
        and " " not in service
    )


def test_the_sample_agrees(tmp_path: Path) -> None:
    async def run() -> int:
        async with rig_at(tmp_path) as rig:
            return sum([await check(rig, case) for case in cases(SAMPLE)])

    assert asyncio.run(run()) > 4_000


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_corpus_agrees(tmp_path: Path, chunk: int) -> None:
    if not CORPUS.exists():
        pytest.skip(f"no policy corpus at {CORPUS}; set QUBES_CORPORA to the folder that has policy/")

    async def run() -> int:
        compared = 0
        async with rig_at(tmp_path) as rig:
            for case in cases(CORPUS):
                if zlib.crc32(case["id"].encode()) % CHUNKS == chunk:
                    compared += await check(rig, case)
        return compared

    assert asyncio.run(run()) > 9_000


def test_the_daemon_as_a_process_agrees(tmp_path: Path) -> None:
    async def run() -> int:
        compared = 0
        async with alone(tmp_path) as daemon:
            for case in cases(SAMPLE):
                if fits_process(case):
                    process = AsProcess(daemon)
                    await process.judge_by(case)
                    compared += await check_all(process, case)
        return compared

    assert asyncio.run(run()) > 3_000
