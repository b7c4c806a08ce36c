"""Recorded answers of the original: a sample always, the whole corpora where they are found."""

import gzip
import json
import os
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.conformance import answer

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests/corpora/policy-sample.jsonl.gz"
CORPORA = Path(os.environ.get("QUBES_CORPORA", ROOT.parent / "shared/corpora")) / "policy"
CHUNKS = 4


def cases(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def found(name: str) -> Path:
    path = CORPORA / name
    if not path.exists():
        pytest.skip(f"no policy corpus at {path}; set QUBES_CORPORA to the folder that has policy/")
    return path


def question(case: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in case.items() if key not in ("expect", "note")}


def agrees(wanted: Any, given: Any) -> bool:
    """Whether the answer has all that the corpus has, numbers and booleans told apart."""
    if isinstance(wanted, dict):
        return isinstance(given, dict) and all(
            key in given and agrees(value, given[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(given, list) and len(wanted) == len(given) and all(map(agrees, wanted, given))
    return type(wanted) is type(given) and bool(wanted == given)


def check(case: dict[str, Any]) -> None:
    given = answer(question(case))
    assert given.pop("id") == case["id"]
    wanted = case["expect"]
    if case["type"] == "eval":
        assert agrees(wanted["load"], given["load"]), (case["id"], wanted["load"], given["load"])
        assert len(given["results"]) == len(case["requests"])
        for asked, want, got in zip(case["requests"], wanted["results"], given["results"], strict=True):
            assert agrees(want, got), (case["id"], asked, want, got)
    else:
        assert agrees(wanted, given), (case["id"], wanted, given)


def test_the_sample_agrees() -> None:
    checked = 0
    for case in cases(SAMPLE):
        check(case)
        checked += 1
    assert checked > 200


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("name", ["parse.jsonl.gz", "eval.jsonl.gz"])
def test_the_corpus_agrees(name: str, chunk: int) -> None:
    for case in cases(found(name)):
        if zlib.crc32(case["id"].encode()) % CHUNKS == chunk:
            check(case)


def test_where_the_original_crashes_there_is_an_orderly_answer() -> None:
    answers = {}
    for case in cases(found("upstream-crashes.jsonl.gz")):
        (result,) = answer(question(case))["results"]
        asked = case["requests"][0]
        assert result["decision"] == "deny"
        assert result["daemon"]["response"] == "result=deny"
        answers[asked["service_and_arg"], asked["source"]] = result["kind"]
    # A rule for @dispvm:NAME does not match where the source has no default; an unknown target= runs nothing.
    assert answers["ctap.ClientPin", "printer"] == "no-rule"
    assert answers["admin.vm.device.usb.Attach+", "sys-net"] == "nothing-to-ask"
    assert set(answers.values()) == {"no-rule", "rule", "nothing-to-ask"}


def test_the_adapter_answers_line_by_line_and_ends_with_its_input() -> None:
    some = [question(case) for case, _ in zip(cases(SAMPLE), range(5), strict=False)]
    with subprocess.Popen(
        [ROOT / "tools/policy-conformance"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as adapter:
        assert adapter.stdin is not None
        assert adapter.stdout is not None
        for case in some:
            adapter.stdin.write(json.dumps(case) + "\n")
            adapter.stdin.flush()
            assert json.loads(adapter.stdout.readline())["id"] == case["id"]
        adapter.stdin.write('{"id": "broken", "type": "parse"}\n')
        adapter.stdin.flush()
        assert json.loads(adapter.stdout.readline()) == {"id": "broken"}
        adapter.stdin.close()
        assert adapter.stdout.read() == ""
        assert adapter.wait(timeout=20) == 0


def test_nothing_in_the_sample_is_a_file_of_the_original() -> None:
    for case in cases(SAMPLE):
        text = json.dumps(case["files"])
        assert "modify this file" not in text
        assert "GetRandomized" not in text
