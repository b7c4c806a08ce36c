"""``qubes-policy history`` and ``rollback``."""

from __future__ import annotations

import json

import pytest

from broker.authoring.desk import author
from tests.broker.authoring.typing_rig import GRANT, Desk, fixture_desk

__all__ = ["fixture_desk"]

MORE = GRANT.replace("work", "vault")


@pytest.fixture(name="kept")
def fixture_kept(desk: Desk) -> Desk:
    """Found with one file, changed here, changed by an editor."""
    desk.patch.setenv("SUDO_USER", "carol")
    desk.patch.setenv("TZ", "UTC")
    desk.write(**{"_20-a": "# a\n"})
    assert desk.types(GRANT, "-r", "30-user")[0] == 0
    desk.write(**{"_30-user": GRANT + MORE, "include_team": "# team\n"})
    return desk


def test_history_is_a_table(kept: Desk) -> None:
    _, out, _ = kept.types("", "history")
    rows = [line.split(maxsplit=3) for line in out.splitlines()]
    assert rows[0] == ["entry", "when", "who", "file                   what"]
    assert [(row[0], row[3]) for row in rows[1:]] == [
        ("1", "not known     20-a                   made: as it was found"),
        ("2", "dom0 (carol)  30-user                made"),
        ("3", "not known     30-user, include/team  changed, made: changed by other means"),
    ]


def test_history_for_programs(kept: Desk) -> None:
    entries = json.loads(kept.types("", "history", "--json")[1])
    assert [entry["entry"] for entry in entries] == [1, 2, 3]
    assert entries[1]["who"] == {"qube": "dom0", "user": "carol"}
    (file,) = entries[1]["files"]
    assert (file["file"], file["before"], file["change"]) == ("30-user.policy", None, "made")


def test_an_entry_shows_what_it_changed(kept: Desk) -> None:
    kept.types("", "history")
    _, out, _ = kept.types("", "history", "3")
    assert out.splitlines()[1:] == [
        *("--- 30-user", "+++ 30-user", "@@ -1 +1,2 @@", f" {GRANT.strip()}", f"+{MORE.strip()}"),
        *("--- /dev/null", "+++ include/team", "@@ -0,0 +1 @@", "+# team"),
    ]


@pytest.mark.parametrize(
    ("number", "answers", "arguments", "status", "left"),
    [
        pytest.param("2", "y\n", [], 0, GRANT, id="asked"),
        pytest.param("2", "q\n", [], 1, GRANT + MORE, id="given-up"),
        pytest.param("2", "", ["--yes"], 0, GRANT, id="for-scripts"),
        pytest.param("3", "", [], 0, GRANT + MORE, id="it-is-so"),
        pytest.param("1", "y\n", [], 1, GRANT + MORE, id="a-warning-needs-the-whole-word"),
        pytest.param("1", "yes\n", [], 0, None, id="warned"),
    ],
)
def test_rollback(
    kept: Desk, number: str, answers: str, arguments: list[str], status: int, left: str | None
) -> None:
    kept.types("", "history")
    found, out, _ = kept.types(answers, "rollback", number, *arguments, f"--system-info={kept.root}/system")
    assert found == status, out
    place = kept.path("_30-user")
    assert (place.read_text() if place.exists() else None) == left
    if number == "2":
        assert "mgmt may no longer call:\n  admin.vm.Start on vault\n" in out


def test_the_way_back_can_be_taken_back(kept: Desk) -> None:
    kept.types("", "history")
    assert kept.types("", "rollback", "1", "--yes")[0] == 0
    assert kept.types("", "rollback", "3", "--yes")[0] == 0
    assert kept.path("_30-user").read_text() == GRANT + MORE
    assert "rollback to 1\n" in kept.types("", "history")[1]


@pytest.mark.parametrize("command", ["history", "rollback"])
def test_what_is_not_remembered_is_told(kept: Desk, command: str) -> None:
    status, _, err = kept.types("", command, "9")
    assert status == 1
    assert "the history has no entry 9" in err


def test_who_types_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert str(author()).startswith("dom0 (")
