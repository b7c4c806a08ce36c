"""Recorded answers of the original policy daemon, asked for over the real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policy_engine import World
from tests.broker.policy_rig import Rig, lines, rig_at
from tools.conformance import tree

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests/corpora/policy-sample.jsonl.gz"
CORPUS = Path(os.environ.get("QUBES_CORPORA", ROOT.parent / "shared/corpora")) / "policy/eval.jsonl.gz"
CHUNKS = 4

ASKED_SOURCE = re.compile(r"[A-Za-z0-9@_.-]{1,31}")
ASKED_TARGET = re.compile(r"[A-Za-z0-9@_.-]{1,63}")


def cases(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as found:
        for line in found:
            case = json.loads(line)
            if case["type"] == "eval":
                yield case


async def check(rig: Rig, case: dict[str, Any]) -> int:
    """Ask all of a case. Returns how many answers were compared."""
    rig.judge_by(tree(case), World.from_system_info(case["system_info"]))
    compared = 0
    for question, want in zip(case["requests"], case["expect"]["results"], strict=True):
        compared += await check_one(rig, question, want, case["id"])
    return compared


async def check_one(rig: Rig, question: dict[str, Any], want: dict[str, Any], name: str) -> int:
    source, target, service = (question[key] for key in ("source", "intended_target", "service_and_arg"))
    more = {"requested_source": question["requested_source"]} if "requested_source" in question else {}
    compared = 0
    if "daemon" in want:
        rig.agent.say(question["agent_answer"])
        answer = await rig.ask(lines(source, target, service, **more))
        assert answer.decode("ascii") == want["daemon"]["response"], (name, question)
        await rig.settled()
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
