"""``qubes-policy edit``: what is refused, what is shown, and what is in force in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.authoring.editor import main as editor
from tests.broker.authoring.typing_rig import GRANT, Desk, fixture_desk

__all__ = ["fixture_desk"]

BROKEN = "admin.vm.Start * mgmt work alow\n"
DENY = "* * * * deny\n"


@pytest.mark.parametrize(
    ("drafts", "answers", "status", "left", "said"),
    [
        pytest.param([GRANT], "y\n", 0, GRANT, "mgmt may now call:\n  admin.vm.Start on work\n", id="good"),
        pytest.param([GRANT], "yes\n", 0, GRANT, "mgmt may now call", id="the-whole-word"),
        pytest.param([GRANT], "Y \n", 0, GRANT, "+admin.vm.Start * mgmt work allow", id="as-people-type"),
        pytest.param([""], "", 0, None, "30-user: nothing was changed\n", id="nothing-written"),
        pytest.param([GRANT], "q\n", 1, None, "30-user: not changed\n", id="given-up"),
        pytest.param([GRANT], "", 1, None, "30-user: not changed\n", id="nobody-answers"),
        pytest.param([GRANT], "n\n\nq\n", 1, None, "30-user: not changed\n", id="no-answer-is-no-answer"),
        pytest.param(
            [BROKEN],
            "y\nq\n",
            1,
            None,
            "30-user.policy:1: column 28: expected allow, ask or deny, found 'alow'\n    admin.vm.Start",
            id="broken-and-given-up",
        ),
        pytest.param([BROKEN, GRANT], "e\ny\n", 0, GRANT, "mgmt may now call", id="broken-and-repaired"),
        pytest.param(
            ["!include include/gone\n", GRANT], "e\ny\n", 0, GRANT, "expected a file, found", id="as-a-whole"
        ),
        pytest.param([GRANT, GRANT * 2], "e\ny\n", 0, GRANT * 2, "@@ -0,0 +1,2 @@", id="edited-again"),
    ],
)
def test_edit(desk: Desk, drafts: list[str], answers: str, status: int, left: str | None, said: str) -> None:
    desk.drafts(*drafts)
    found, out, err = desk.edits(answers)
    assert (found, err) == (status, "")
    assert said in out
    place = desk.path("_30-user")
    assert (place.read_text() if place.exists() else None) == left
    assert list(desk.root.glob("qubes-policy-*")) == []


def test_what_was_written_can_be_kept_beside(desk: Desk) -> None:
    desk.drafts(BROKEN)
    status, out, _ = desk.edits("x\n")
    assert status == 1
    place = desk.root / out.rpartition("what was written is in ")[2].splitlines()[0]
    assert place.read_text() == BROKEN
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert not desk.path("_30-user").exists()


def test_what_others_break_elsewhere_is_refused(desk: Desk) -> None:
    desk.write(**{"_20-a": "!include include/a\n", "include_a": GRANT})
    desk.drafts("!dialect delegation-1\n* x\n")
    status, out, _ = desk.edits("q\n", "include/a")
    assert (status, desk.path("include_a").read_text()) == (1, GRANT)
    assert "include/a:2: column" in out


def test_what_somebody_else_writes_meanwhile_is_not_overwritten(desk: Desk) -> None:
    desk.write(**{"_30-user": "# theirs before\n"})
    desk.drafts(GRANT)
    script = desk.root / "editor"
    script.write_text(script.read_text().replace("exit", f"echo '# theirs' > {desk.path('_30-user')}; exit"))
    status, out, _ = desk.edits("y\n")
    assert (status, desk.path("_30-user").read_text()) == (1, "# theirs\n")
    assert "somebody else has changed it meanwhile" in out
    place = out.rpartition("what was written is in ")[2].splitlines()[0]
    assert (desk.root / place).read_text() == GRANT


@pytest.mark.parametrize(
    ("answers", "arguments", "status"),
    [
        pytest.param("y\nyes\n", [], 0, id="the-whole-word"),
        pytest.param("y\n", [], 1, id="not-by-one-key"),
        pytest.param("", ["--yes"], 1, id="not-without-being-asked"),
    ],
)
def test_who_is_locked_out_is_warned_of(desk: Desk, answers: str, arguments: list[str], status: int) -> None:
    desk.write(**{"_30-user": GRANT + "policy.List * mgmt dom0 allow\n"})
    desk.drafts(DENY)
    found, out, _ = desk.edits(answers, "00-oops", *arguments)
    assert found == status
    assert out.splitlines()[5:12] == [
        "mgmt may no longer call:",
        "  admin.vm.Start on work",
        "  policy.List on dom0",
        "WARNING: etc/qubes/policy.d/00-oops.policy:1: this denies every call before 2 rules that grant some",
        "WARNING: mgmt may no longer call policy.List, by which policy is read and edited",
        "WARNING: mgmt may no longer call anything of the Admin API",
        "Dom0 itself is never judged: qubes-policy rollback takes it back there.",
    ]
    assert desk.path("_00-oops").exists() == (status == 0)


def test_what_was_written_is_not_lost_where_something_goes_wrong(desk: Desk) -> None:
    desk.drafts(GRANT)
    script = desk.root / "editor"
    script.write_text(script.read_text().replace("exit", "exit 3"))
    status, out, err = desk.edits("")
    assert (status, err) == (2, "qubes-policy: editor failed with status 3\n")
    assert (desk.root / out.rpartition("what was written is in ")[2].strip()).read_text() == GRANT


def test_yes_needs_no_answer(desk: Desk) -> None:
    desk.drafts(GRANT)
    assert desk.edits("", "--yes")[0] == 0
    assert desk.path("_30-user").read_text() == GRANT


def test_a_policy_that_does_not_load_can_be_repaired(desk: Desk) -> None:
    desk.write(**{"_30-user": BROKEN})
    desk.drafts(GRANT)
    status, out, _ = desk.edits("y\n")
    assert status == 0
    assert "Now the policy does not load, and every judged call is denied: etc/qubes" in out


def test_without_qubes_to_speak_of_it_can_be_edited(desk: Desk) -> None:
    desk.drafts(GRANT)
    status, out, _ = desk.types("y\n", "edit")
    assert status == 0
    assert "What it means for the qubes cannot be told: run/qubesd.internal.sock: nobody answers" in out


@pytest.mark.parametrize(
    ("editor_", "said"),
    [
        pytest.param("/nonexistent -x", "No such file or directory; name an editor in $VISUAL", id="missing"),
        pytest.param("false", "false failed with status 1", id="fails"),
    ],
)
def test_an_editor_that_does_not_work_is_told_of(desk: Desk, editor_: str, said: str) -> None:
    desk.patch.setenv("VISUAL", editor_)
    status, _, err = desk.edits("")
    assert status == 2
    assert said in err
    assert list(desk.root.glob("qubes-policy-*")) == []


@pytest.mark.parametrize("name", ["../30-user", "30-user.policy", "include/", "Capital", "include/a/b"])
def test_a_bad_name_is_refused(desk: Desk, name: str) -> None:
    status, _, err = desk.edits("", name)
    assert status == 1
    assert err.startswith("qubes-policy: ")


def test_hostile_text_is_shown_harmlessly(desk: Desk) -> None:
    desk.drafts("# \x1b[2J\x07 \u202e\n")
    _, out, _ = desk.edits("q\n")
    assert "+# ?[2J? ?" in out


def test_the_editor_has_its_stock_name(desk: Desk) -> None:
    desk.drafts(GRANT)
    with pytest.raises(SystemExit) as ended:
        editor([f"--root={desk.root}", "--yes", f"--system-info={desk.root}/system", "include/team-a"])
    assert ended.value.code == 0
    assert Path(desk.path("include_team-a")).read_text() == GRANT
