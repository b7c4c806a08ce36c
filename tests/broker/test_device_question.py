"""The question about a device on its way to dom0's agent and back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from broker.agent import MAX_ANSWER, Agents
from qubesd.core.device_questions import Question

QUESTION = Question("dom0", "sys-usb", "Big Disk", "sda", ("work",), {"sys-usb": "x", "work": "y"})


@pytest.mark.parametrize("said", [b"allow:work", b"deny", b"", b"x" * 100_000, b"\xff\0"])
def test_the_question_and_its_answer(tmp_path: Path, said: bytes) -> None:
    heard: list[bytes] = []

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.write(said)
        writer.close()

    async def ask() -> str | None:
        async with await asyncio.start_unix_server(agent, tmp_path / "device-agent.GUI"):
            return await Agents(tmp_path).place(QUESTION)

    answer = asyncio.run(ask())
    header, _, message = heard[0].partition(b"\0")
    assert header == b"device-agent.GUI dom0 name dom0"
    assert json.loads(message) == {
        "source": "sys-usb",
        "device_name": "Big Disk",
        "argument": "sda",
        "targets": ["work"],
        "default_target": "work",
        "icons": {"sys-usb": "x", "work": "y"},
    }
    assert answer is not None
    assert len(answer) <= 4 * 2 * MAX_ANSWER
    assert answer.encode("ascii").startswith(said[:4] if said.isascii() else b"\\xff")


def test_no_agent_is_no_answer(tmp_path: Path) -> None:
    assert asyncio.run(Agents(tmp_path).place(QUESTION)) is None
