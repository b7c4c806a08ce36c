from __future__ import annotations

from pathlib import Path

import pytest

from qubesd.core.written import Record, Written


def test_what_is_kept_is_known_to_the_next_daemon(tmp_path: Path) -> None:
    written = Written(tmp_path / "databases")
    written.keep("one", 3, {"/b", "/a"})
    written.keep("one", 4, {"/c"})
    written.keep("two", 5, ())
    assert Written(tmp_path / "databases").load("one") == Record(4, frozenset({"/c"}))
    written.drop_but({"two"})
    assert written.load("one") is None
    assert written.load("two") == Record(5, frozenset())
    written.drop("two")
    written.drop("two")
    assert list((tmp_path / "databases").iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"xid": "x", "keys": []}', '{"xid": 1, "keys": 1}', "\x00"]
)
def test_a_record_that_cannot_be_read_is_none(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one").write_text(content)
    assert Written(tmp_path).load("one") is None
    assert "what was written into the qube's database is not known" in caplog.text
