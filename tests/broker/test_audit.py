"""The audit: one safe line a call, whatever is in it, and nothing lost unsaid."""

from __future__ import annotations

import json
import resource
import signal
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit import MAX_TEXT, MAX_WAITING, AuditLog, Record

RECORD = Record(0.25, 1, "alice", "admin.vm.List", "", "dom0", "allow", "", "a.policy:3", 0.001, "ok", 7)


def parsed(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_a_record_has_all_that_is_said_of_a_call() -> None:
    assert json.loads(RECORD.line()) == {
        "time": "1970-01-01T00:00:00.250Z",
        "call": 7,
        "id": 1,
        "caller": "alice",
        "service": "admin.vm.List",
        "argument": "",
        "target": "dom0",
        "decision": "allow",
        "reason": "",
        "rule": "a.policy:3",
        "duration": 0.001,
        "outcome": "ok",
    }


@given(st.text(), st.text(min_size=MAX_TEXT + 1))
def test_a_record_is_one_line_of_printable_ascii(text: str, long: str) -> None:
    line = RECORD._replace(caller=text, service=long, argument=text, target=long).line()
    assert line.endswith("\n")
    assert set(line[:-1]) <= set(string.printable) - set("\n\r\t\x0b\x0c")
    read = json.loads(line)
    assert read["caller"] == (text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "...")
    assert len(read["service"]) == MAX_TEXT


def test_a_record_is_in_the_file_when_the_call_is_answered(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit", 1_000_000, 3)
    for number in range(3):
        audit.write(RECORD._replace(id=number))
        assert [one["id"] for one in parsed(tmp_path / "audit")] == list(range(number + 1))
    audit.close()


def test_files_are_put_aside_by_size_and_only_so_many_kept(tmp_path: Path) -> None:
    length = len(RECORD.line())
    audit = AuditLog(tmp_path / "audit", 2 * length, 2)
    for number in range(1, 8):
        audit.write(RECORD._replace(id=number))
    audit.close()
    kept = {path.name: [one["id"] for one in parsed(path)] for path in tmp_path.iterdir()}
    assert kept == {"audit": [7], "audit.1": [5, 6], "audit.2": [3, 4]}


def test_a_new_daemon_goes_on_with_the_file(tmp_path: Path) -> None:
    for number in (1, 2):
        audit = AuditLog(tmp_path / "audit", 1_000_000, 2)
        audit.write(RECORD._replace(id=number))
        audit.close()
    assert [one["id"] for one in parsed(tmp_path / "audit")] == [1, 2]


def test_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        AuditLog(tmp_path / "audit", 1_000, 2)


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process can grow beyond ``size`` bytes, as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_said_and_the_records_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = AuditLog(tmp_path / "audit", 1_000_000_000, 2)
    with files_end_at(1_000):
        for number in range(10):
            audit.write(RECORD._replace(id=number))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "stands still" in caplog.text
    audit.write(RECORD._replace(id=10))
    assert "goes on" in caplog.text
    audit.close()
    assert [one["id"] for one in parsed(tmp_path / "audit")] == list(range(11))


def test_what_is_lost_at_last_is_counted(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit", 1_000_000_000, 2)
    count = MAX_WAITING // len(RECORD.line()) + 100
    with files_end_at(0):
        for number in range(count):
            audit.write(RECORD._replace(id=number))
    audit.flush()
    audit.write(RECORD._replace(id=-1))
    audit.close()
    *written, lost, last = parsed(tmp_path / "audit")
    assert len(written) + lost["lost"] == count
    assert lost["lost"] > 0
    assert last["id"] == -1
