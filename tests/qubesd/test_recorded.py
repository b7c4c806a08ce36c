"""A sample of what the original answered, kept with the tests and played to a real daemon.

Each line of ``tests/corpora/admin.jsonl.gz`` is a step: a call and the expected answer, or the events that
came since the last such step. ``${word}`` stands for what an earlier answer bound as ``${word:=...}``;
``${?word}`` for any text.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

import pytest

from broker.client import CallError, call, events
from broker.wire import WireEvent
from tests.qubesd.daemon import running_daemon

CORPUS = Path(__file__).parents[1] / "corpora/admin.jsonl.gz"

_TOKEN = re.compile(r"\$\{(\??)([a-z0-9]+)(?::=[a-z]+)?\}")
_MARK = "the-events-end-here"

Step = dict[str, Any]
Bound = dict[str, str]


def scenarios() -> dict[str, list[Step]]:
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
        steps = [json.loads(line) for line in lines]
    return {name: list(group) for name, group in groupby(steps, key=lambda step: str(step["scenario"]))}


class Player:
    """Plays steps to the daemon at ``path``; ``bound`` holds what earlier answers bound."""

    def __init__(self, path: Path, kernel: str, pool: str) -> None:
        self.path = path
        self.bound: Bound = {"kernel": kernel, "pool": pool}
        self.stream: Iterator[WireEvent] = iter(())

    def play(self, step: Step) -> str | None:
        """What is wrong with the answer; ``None`` for nothing."""
        if step["op"] == "listen":
            self.stream = events(self.path, step["dest"], timeout=60)
            assert next(self.stream).name == "connection-established"
            return None
        if step["op"] == "events":
            return self._compare_events(step)
        return self._compare(step) if step["op"] == "call" else None

    def _ask(self, step: Step) -> tuple[str, str]:
        """The class of the error, empty for none, and the content."""
        payload = self._filled(step.get("payload", "")).encode()
        target, argument = self._filled(step["dest"]), self._filled(step.get("arg", ""))
        try:
            content = call(self.path, step["method"], target, argument, payload, source=step["src"])
        except CallError as error:
            return error.kind, error.message
        return "", content.decode()

    def _compare(self, step: Step) -> str | None:
        kind, content = self._ask(step)
        match step["compare"]:
            case "any":
                agrees = True
            case "any-exception":
                agrees = bool(kind)
            case "class":
                agrees = kind in (step["exception"], *step.get("also", ()))
            case "lines":
                agrees = not kind and sorted(content.splitlines()) == sorted(step["reply"].splitlines())
            case "text" | "rows":
                agrees = not kind and matches(step["reply"], content, self.bound)
            case other:
                raise AssertionError(f"unknown comparison {other!r}")
        return None if agrees else f"step {step['step']}: {step['method']}: {kind or 'ok'} {content!r}"

    def _compare_events(self, step: Step) -> str | None:
        """Exactly the expected ones came, in any order; a mark of our own says where they end."""
        call(self.path, "admin.vm.tag.Set", argument=_MARK)
        came = list(takewhile(lambda one: one.name != f"domain-tag-add:{_MARK}", self.stream))
        call(self.path, "admin.vm.tag.Remove", argument=_MARK)
        assert next(self.stream).name == f"domain-tag-delete:{_MARK}"
        missing = []
        for subject, name, keys in step["events"]:
            for event in came:
                texts = ((subject, event.subject), (name, event.name))
                values = ((value, event.keys.get(key, "")) for key, value in keys.items())
                if all(matches(want, got, self.bound) for want, got in (*texts, *values)):
                    came.remove(event)
                    break
            else:
                missing.append((subject, name))
        return f"step {step['step']}: missing {missing}, unexpected {came}" if missing or came else None

    def _filled(self, template: str) -> str:
        return _TOKEN.sub(lambda token: self.bound[token[2]], template)


def matches(template: str, text: str, bound: Bound) -> bool:
    """Whether the text is as the template says; binds what it names for the first time."""
    parts, end, names = [], 0, []
    for token in _TOKEN.finditer(template):
        parts.append(re.escape(template[end : token.start()]))
        end = token.end()
        if token[1]:
            parts.append("[^\n]*")
        elif token[2] in bound:
            parts.append(re.escape(bound[token[2]]))
        else:
            names.append(token[2])
            parts.append("([^ \n]+)")
    found = re.fullmatch("".join(parts) + re.escape(template[end:]), text)
    if found is not None:
        bound.update(zip(names, found.groups(), strict=True))
    return found is not None


def test_daemon_answers_as_the_original_did(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "d") as path:
        kernel, pool = (
            call(path, "admin.property.Get", argument=name).decode().split(" ")[-1]
            for name in ("default_kernel", "default_pool")
        )
        for name, steps in scenarios().items():
            player = Player(path, kernel, pool)
            assert [wrong for step in steps if (wrong := player.play(step)) is not None] == [], name


def test_sample_is_not_empty() -> None:
    assert sum(map(len, scenarios().values())) > 400


@pytest.mark.parametrize(
    ("template", "text", "want"),
    [
        pytest.param("a${?any}b", "axyb", True, id="anything"),
        pytest.param("a${?any}b", "axy", False, id="not-the-rest"),
        pytest.param("${new:=word}", "two words", False, id="one-word"),
        pytest.param("${kernel}", "6.1", True, id="known"),
        pytest.param("${kernel}", "6x1", False, id="known-literally"),
    ],
)
def test_templates(template: str, text: str, want: bool) -> None:
    assert matches(template, text, {"kernel": "6.1"}) is want
