"""The audit: one safe line a call, whatever is in it, and nothing lost unsaid."""

from __future__ import annotations

import gzip
import json
import os
import string
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit import MAX_TEXT, MAX_WAITING, AuditLog, Record
from broker.put_aside import DAY, PutAside
from tests.faults.limits import files_end_at

RECORD = Record(0.25, 1, "alice", "admin.vm.List", "", "dom0", "allow", "", "a.policy:3", 0.001, "ok", 7)


def parsed(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return [json.loads(line) for line in text.decode("ascii").splitlines()]


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
    assert kept(tmp_path) == {"audit": [7], "audit.1.gz": [5, 6], "audit.2.gz": [3, 4]}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def kept(folder: Path) -> dict[str, list[int]]:
    """The records in each file."""
    return {path.name: [one["id"] for one in parsed(path)] for path in folder.iterdir()}


def test_files_are_put_aside_by_age_and_go_when_they_are_too_old(tmp_path: Path) -> None:
    """Eight days are kept in files of two; the records say when they were."""
    now = time.time()
    ages = {"audit.1.gz": 2.5, "audit.2.gz": 7.5, "audit.3": 8.5, "audit.4.gz": 20.0}
    for name, days in ages.items():
        file = tmp_path / name
        file.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
        os.utime(file, (now, now - days * DAY))
    (tmp_path / "audit.1.gz.new").touch()
    (tmp_path / "audit").write_text(RECORD._replace(started=now - 2.1 * DAY).line(), encoding="ascii")
    audit = AuditLog(tmp_path / "audit", 1_000_000, 10, days=8)
    assert kept(tmp_path) == {"audit": [1], "audit.1.gz": [], "audit.2.gz": []}
    audit.write(RECORD._replace(started=now, id=2))
    audit.write(RECORD._replace(started=now, id=3))
    audit.close()
    assert kept(tmp_path) == {"audit": [2, 3], "audit.1.gz": [1], "audit.2.gz": [], "audit.3.gz": []}


def test_nothing_is_lost_where_a_file_cannot_be_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "audit.new").mkdir()
    audit = AuditLog(tmp_path / "audit", 2 * len(RECORD.line()), 2)
    for number in range(1, 6):
        audit.write(RECORD._replace(id=number))
    assert (audit.stalled, audit.lost) == (True, 0)
    assert "stands still" in caplog.text
    (tmp_path / "audit.new").rmdir()
    audit.write(RECORD._replace(id=6))
    audit.write(RECORD._replace(id=7))
    audit.close()
    assert sorted(number for numbers in kept(tmp_path).values() for number in numbers) == list(range(1, 8))


def test_a_file_that_cannot_be_compressed_stays_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "audit").write_text(RECORD.line(), encoding="ascii")
    aside = PutAside(tmp_path / "audit", 2, 0)
    aside.take()
    with files_end_at(50):
        aside.pack()
        aside.wait()
    assert kept(tmp_path) == {"audit.1": [1]}
    assert "stays as it is" in caplog.text


def test_more_than_are_kept_now_go(tmp_path: Path) -> None:
    """The configuration kept more before; what is no log of ours is left alone."""
    others = ("audit.7.gz.bak", "audit.x.gz", "audit.0", "other.9.gz")
    for name in (*others, "audit.1.gz", "audit.2.gz", "audit.3.gz", "audit.4", "audit.12.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    AuditLog(tmp_path / "audit", 1_000_000, 2).close()
    assert {one.name for one in tmp_path.iterdir()} == {"audit", "audit.1.gz", "audit.2.gz", *others}


@pytest.mark.parametrize("most", [pytest.param(1_000_000, id="same-file"), pytest.param(300, id="next-file")])
def test_half_a_record_spoils_no_other(tmp_path: Path, most: int) -> None:
    """A daemon was killed on a full disk in the middle of one."""
    whole = RECORD.line()
    (tmp_path / "audit").write_text(whole + whole[:50], encoding="ascii")
    for number in (2, 3):
        audit = AuditLog(tmp_path / "audit", most, 2)
        audit.write(RECORD._replace(id=number))
        audit.close()
    lines: list[str] = []
    for path in sorted(tmp_path.iterdir(), reverse=True):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines += content.decode("ascii").splitlines()
    lines.remove(whole[:50])
    assert sorted(json.loads(line)["id"] for line in lines) == [1, 2, 3]


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
