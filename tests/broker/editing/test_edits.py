"""Edits last, one at a time, whole or not at all, and the history tells of every one of them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from broker.editing.edits import ANY_TOKEN, NEW_TOKEN, Places, PolicyEdits
from broker.editing.entry import Author, FileChange
from broker.editing.store import PolicyStore, token_of
from policy_engine import PolicyError
from qubesd.errors import BadPolicyPath, PolicyAdminError, PolicySyntaxError, PolicyTokenError
from tests.broker.editing.edits_rig import ME, RULE, Desk, told
from tests.broker.files_rig import Place, follow

PATIENCE = 30.0


@pytest.fixture(name="desk")
def fixture_desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, {"30-user.policy": RULE})


def test_an_edit_is_entered_with_who_when_what_and_why(desk: Desk) -> None:
    before = time.time()
    desk.edits.replace(Author("work"), "include/x", NEW_TOKEN, b"one\n")
    desk.edits.replace(ME, "include/x", token_of(b"one\n"), b"two\n", "a better one")
    desk.edits.remove(ME, "30-user.policy", ANY_TOKEN)
    found, made, changed, removed = desk.edits.history()
    assert told(found) == ("", "as it was found", ["30-user.policy"])
    assert (told(made), made.files) == (
        ("work", "", ["include/x"]),
        (FileChange("include/x", None, token_of(b"one\n")),),
    )
    assert told(changed) == ("dom0 (me)", "a better one", ["include/x"])
    assert removed.files == (FileChange("30-user.policy", token_of(RULE.encode()), None),)
    assert before <= found.time <= made.time <= changed.time <= removed.time <= time.time()
    assert [entry.number for entry in desk.edits.history()] == [1, 2, 3, 4]
    assert desk.agrees()


def test_what_an_editor_did_is_entered_before_the_next_change(desk: Desk) -> None:
    desk.edits.notice()
    desk.write("30-user.policy", RULE * 2)
    desk.write("31-more.policy", RULE)
    desk.edits.replace(ME, "include/x", NEW_TOKEN, b"")
    assert [told(entry) for entry in desk.edits.history()] == [
        ("", "as it was found", ["30-user.policy"]),
        ("", "changed by other means", ["30-user.policy", "31-more.policy"]),
        ("dom0 (me)", "", ["include/x"]),
    ]
    assert desk.agrees()


def test_a_change_that_changes_nothing_is_no_entry(desk: Desk) -> None:
    desk.edits.replace(ME, "30-user.policy", ANY_TOKEN, RULE.encode())
    assert desk.edits.change(ME, {"30-user.policy": RULE.encode(), "31-none.policy": None}) is None
    assert [entry.why for entry in desk.edits.history()] == ["as it was found"]


def test_a_file_is_for_the_group_to_write_and_nothing_is_left_beside_it(desk: Desk) -> None:
    previous = os.umask(0o077)
    try:
        desk.edits.replace(ME, "30-user.policy", ANY_TOKEN, b"")
    finally:
        os.umask(previous)
    assert (desk.directory / "30-user.policy").stat().st_mode & 0o7777 == 0o664
    assert set(desk.files()) == {"30-user.policy"}


def test_rollback_makes_the_files_what_they_were_as_one_change(desk: Desk) -> None:
    desk.edits.change(ME, {"30-user.policy": b"!include include/x\n", "include/x": RULE.encode()})
    there = desk.files()
    desk.edits.change(ME, {"30-user.policy": b"", "include/x": None, "40-z.policy": b""})
    assert set(desk.edits.way_back(2)) == {"30-user.policy", "40-z.policy", "include/x"}
    entry = desk.edits.rollback(ME, 2)
    assert entry is not None
    assert (entry.why, desk.files()) == ("rollback to 2", there)
    assert desk.edits.rollback(ME, 2) is None
    assert desk.edits.rollback(ME, 1) is not None
    assert desk.files() == {"30-user.policy": RULE.encode()}
    assert desk.agrees()


def test_a_rollback_to_what_would_not_load_is_refused(desk: Desk) -> None:
    desk.write("30-user.policy", "oops\n")
    desk.edits.notice()
    desk.edits.replace(ME, "30-user.policy", ANY_TOKEN, RULE.encode())
    with pytest.raises(PolicySyntaxError, match=r"30-user\.policy:1"):
        desk.edits.rollback(ME, 1)
    with pytest.raises(PolicyAdminError, match="no entry 7"):
        desk.edits.rollback(ME, 7)


@pytest.mark.parametrize(
    "file", ["../x.policy", "include/../../x", "A.policy", ".x.policy", "include/a/b", "x", "/x.policy", ""]
)
def test_a_change_stays_within_the_policy(file: str, desk: Desk) -> None:
    with pytest.raises(BadPolicyPath):
        desk.edits.change(ME, {file: b""})
    assert set(desk.files()) == {"30-user.policy"}


def test_of_two_who_saw_the_same_file_one_replaces_it(desk: Desk) -> None:
    token = token_of(RULE.encode())
    outcomes: list[str] = []

    def edit(number: int) -> None:
        edits = desk.another()
        try:
            edits.replace(
                Author(f"qube{number}"), "30-user.policy", token, f"s.{number} * a b deny\n".encode()
            )
            outcomes.append("made")
        except PolicyTokenError:
            outcomes.append("refused")

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(outcomes) == ["made"] + ["refused"] * 7
    assert len(desk.edits.history()) == 2
    assert desk.agrees()


def test_who_waits_too_long_is_told_so(desk: Desk) -> None:
    other = PolicyStore(desk.directory)
    with other.locked(), pytest.raises(PolicyAdminError, match="somebody else"), other.locked(patience=0.05):
        pass


def test_the_daemon_that_follows_finds_a_whole_policy_at_each_moment(tmp_path: Path) -> None:
    """Includes come, move and go; whenever the files are read, they are a policy that loads."""
    steps: list[dict[str, bytes | None]] = [
        {"30-user.policy": b"!include include/x\n", "include/x": b"s.X * a b deny\n"},
        {"30-user.policy": b"!include include/y\n", "include/x": None, "include/y": b"s.Y * a b deny\n"},
        {"30-user.policy": b"", "include/y": None, "40-more.policy": b"s.Z * a b deny\n"},
        {"40-more.policy": None, "30-user.policy": RULE.encode()},
    ]
    services = [["s.X"], ["s.Y"], ["s.Z"], ["s.A"]]
    errors: list[str] = []

    def lay_out(place: Place) -> None:
        (place.configured / "include").mkdir()
        (place.configured / "30-user.policy").write_text(RULE)

    async def story(place: Place) -> None:
        def swapped() -> None:
            now = place.reloader.policies.now
            if isinstance(now, PolicyError):
                errors.append(str(now))

        place.reloader.swapped = swapped
        edits = PolicyEdits(Places(place.configured, place.runtime, place.legacy, tmp_path / "history", ""))
        for _ in range(3):
            for step, expected in zip(steps, services, strict=True):
                await asyncio.to_thread(edits.change, ME, step)
                await place.becomes(*expected)

    follow(tmp_path, lay_out, story)
    assert errors == []
