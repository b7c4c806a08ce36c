"""The history: what it survives, what it forgets, and that it tells what was."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.catalogue import catalogue
from broker.editing import history as policy_history
from broker.editing.edits import ANY_TOKEN
from broker.editing.entry import LATEST, MAX_WHY, Author, Entry, FileChange, entry_of
from broker.editing.history import ENTRY_WEIGHT
from policy_engine import DirectorySource, Loader
from qubesd.errors import PolicyAdminError
from tests.broker.editing.edits_rig import DIALECT, FRAME, ME, RULE, Desk

TEXTS = st.text(max_size=20)
TOKENS = st.none() | TEXTS


@given(
    st.builds(
        Entry,
        st.integers(0, 1 << 40),
        st.floats(0, LATEST, exclude_max=True),
        st.builds(Author, TEXTS, TEXTS),
        st.lists(st.builds(FileChange, TEXTS, TOKENS, TOKENS), max_size=3).map(tuple),
        TEXTS,
        TEXTS,
        st.integers(0, 1 << 40),
        TEXTS,
    )
)
def test_an_entry_is_one_line_and_reads_back(entry: Entry) -> None:
    assert entry.line().count(b"\n") == 1
    assert entry_of(entry.line()) == entry


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[1]", id="no-object"),
        pytest.param(b"{}", id="nothing"),
        pytest.param(b'{"number": true, "time": 1, "held": "x"}', id="no-number"),
        pytest.param(b'{"number": 1, "time": 1, "held": 1, "files": [[1, null, null]]}', id="no-file"),
        pytest.param(b'{"number": 1, "time": 1, "held": 1, "files": [["a", 1, null]]}', id="no-token"),
        pytest.param(b'{"number": 1, "time": 1, "held": 1, "qube": 1}', id="no-author"),
        pytest.param(b"\xff", id="no-text"),
    ],
)
def test_what_is_no_entry(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        entry_of(line)


@pytest.fixture(name="desk")
def fixture_desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path, {"30-user.policy": RULE})
    for number in range(3):
        desk.edits.replace(ME, "include/x", ANY_TOKEN, f"{number}\n".encode())
    return desk


@pytest.mark.parametrize("cut", [1, 40])
def test_a_line_that_was_cut_short_is_noticed_and_gone(cut: int, desk: Desk) -> None:
    log = desk.history / "log"
    log.write_bytes(log.read_bytes()[:-cut])
    assert len(desk.edits.history()) == 3
    desk.edits.replace(ME, "include/y", ANY_TOKEN, b"")
    assert [entry.why for entry in desk.edits.history()][3:] == ["changed by other means", ""]
    assert desk.agrees()


def test_a_damaged_line_costs_that_entry_alone(desk: Desk) -> None:
    log = desk.history / "log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], b"\xff{damaged\n", *lines[2:]]))
    assert [entry.number for entry in desk.edits.history()] == [1, 3, 4]
    assert desk.edits.rollback(ME, 3) is not None


def test_a_content_that_is_lost_or_damaged_is_not_restored(desk: Desk) -> None:
    for place in (desk.history / "contents").iterdir():
        if place.read_bytes() in (b"0\n", b"1\n"):
            place.write_bytes(b"other\n")
    before = desk.files()
    for number in (2, 3):
        with pytest.raises(PolicyAdminError, match="lost sha256:"):
            desk.edits.rollback(ME, number)
    assert desk.files() == before


def test_a_history_that_is_lost_begins_anew(desk: Desk) -> None:
    for place in (desk.history / "contents").iterdir():
        place.unlink()
    desk.edits.replace(ME, "include/x", ANY_TOKEN, b"again\n")
    assert desk.edits.state(desk.edits.history()[-1].number) == desk.files()


def test_a_comment_is_bounded(desk: Desk) -> None:
    desk.edits.change(ME, {"include/y": b""}, "x" * 10_000)
    assert len(desk.edits.history()[-1].why) == MAX_WHY


def test_who_edits_one_file_all_day_pushes_out_nothing_of_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_history, "MAX_HELD", 12 * ENTRY_WEIGHT)
    desk.edits.replace(ME, "30-user.policy", ANY_TOKEN, b"")
    kept = [entry.number for entry in desk.edits.history() if entry.files[0].file == "30-user.policy"]
    for number in range(40):
        desk.edits.replace(Author("flooder"), "include/x", ANY_TOKEN, f"flood {number}\n".encode())
    entries = desk.edits.history()
    numbers = [entry.number for entry in entries]
    assert set(kept) <= set(numbers)
    assert len(numbers) < 14
    assert numbers[-1] == 45
    assert desk.edits.state(numbers[-1]) == desk.files()
    assert desk.edits.state(kept[0]) == {"30-user.policy": RULE.encode()}
    # Nothing is kept but what the entries need.
    needed = {content for number in numbers for content in desk.edits.state(number).values()}
    kept_contents = [place.read_bytes() for place in (desk.history / "contents").iterdir()]
    assert len(kept_contents) == len(needed) + len({entry.tree for entry in entries})


def test_a_number_is_not_used_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_history, "MAX_HELD", 3 * ENTRY_WEIGHT)
    for number in range(6):
        desk.edits.replace(ME, "include/x", ANY_TOKEN, f"more {number}\n".encode())
    numbers = [entry.number for entry in desk.edits.history()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 10


FILES = st.sampled_from(
    ["10-a.policy", "20-b.policy", "include/a", "include/b", "include/team", "30-frame.policy", "Bad.policy"]
)
CONTENTS = st.sampled_from(
    [
        None,
        "",
        RULE,
        "oops\n",
        "!include include/a\n",
        "!include include/b\n",
        "!include include/team\n",
        FRAME,
        DIALECT,
        DIALECT + "* * a b allow\n",
    ]
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["one", "several", "rollback", "editor"]),
        st.dictionaries(FILES, CONTENTS, min_size=1, max_size=3),
        st.integers(1, 10),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EDITS)
def test_any_edits_leave_a_policy_that_loads_and_a_history_that_replays(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, dict[str, str | None], int]]
) -> None:
    desk = Desk(tmp_path_factory.mktemp("edits"))
    for kind, texts, number in steps:
        contents = {file: None if text is None else text.encode() for file, text in texts.items()}
        before = desk.files()
        try:
            make(desk, kind, contents, number)
        except PolicyAdminError:
            assert desk.files() == before
        policy = Loader(
            DirectorySource(), [str(desk.directory)], catalogue=partial(catalogue, enforced=True)
        ).load()
        assert all(frame.missing for frame in policy.closed)
    desk.edits.notice()
    assert desk.agrees()


def make(desk: Desk, kind: str, contents: dict[str, bytes | None], number: int) -> None:
    file, content = next(iter(contents.items()))
    match kind:
        case "rollback":
            desk.edits.rollback(ME, number)
        case "several":
            desk.edits.change(ME, contents)
        case "editor":
            desk.write(f"4{number}-by-hand.policy", RULE * number)
        case _ if content is None:
            desk.edits.remove(ME, file, ANY_TOKEN)
        case _:
            desk.edits.replace(ME, file, ANY_TOKEN, content)
