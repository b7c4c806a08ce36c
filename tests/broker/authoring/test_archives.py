"""``qubes-policy backup`` and ``restore``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker.authoring.typing_rig import GRANT, Desk, fixture_desk

__all__ = ["fixture_desk"]

TEAM = "!dialect delegation-1\nadmin.vm.Start * mgmt work allow\n"
FRAME = "!dialect delegation-1\nadmin.vm.Start * mgmt @tag:office !include include/team\n"
MORE = TEAM.replace("work", "vault")


@pytest.fixture(name="kept")
def fixture_kept(desk: Desk) -> Desk:
    """A policy with a frame, its backup in ``all.tar``, and what became of it since."""
    desk.write(**{"_20-frame": FRAME, "include_team": TEAM})
    assert desk.types(GRANT, "-r", "30-user")[0] == 0
    assert desk.types("", "backup", str(desk.root / "all.tar")) == (
        *(0, "all.tar: 3 files and 2 entries of the history\n", ""),
    )
    assert desk.types(MORE, "-r", "include/team")[0] == 0
    assert desk.types("", "-d", "30-user")[0] == 0
    return desk


def restored(desk: Desk, answers: str, *arguments: str) -> tuple[int, str, str]:
    return desk.types(answers, "restore", *arguments, f"--system-info={desk.root}/system")


def test_the_whole_policy_comes_back_as_it_was_shown(kept: Desk) -> None:
    status, out, _ = restored(kept, "yes\n", str(kept.root / "all.tar"))
    assert status == 0
    assert "mgmt may now call:\n  admin.vm.Start on work\n" in out
    assert "mgmt may no longer call:\n  admin.vm.Start on vault\n" in out
    assert kept.path("_30-user").read_text() == GRANT
    assert kept.path("include_team").read_text() == TEAM
    assert "restored from the backup of" in kept.types("", "history")[1].splitlines()[-1]


def test_one_frame_comes_back_alone(kept: Desk) -> None:
    assert restored(kept, "y\n", "--frame", "team", str(kept.root / "all.tar"))[0] == 0
    assert kept.path("include_team").read_text() == TEAM
    assert not kept.path("_30-user").exists()


def test_a_backup_of_one_frame(kept: Desk) -> None:
    place = str(kept.root / "team.tar")
    _, out, _ = kept.types("", "backup", "--frame", "include/team", place)
    assert out == "team.tar: include/team and 2 entries of the history\n"
    kept.path("include_team").write_text(TEAM)
    assert restored(kept, "y\n", place)[0] == 0
    assert kept.path("include_team").read_text() == MORE


def test_given_up_nothing_changes(kept: Desk) -> None:
    before = kept.types("", "history")
    assert restored(kept, "q\n", str(kept.root / "all.tar"))[0] == 1
    assert kept.types("", "history") == before


def test_what_is_there_already_needs_no_answer(kept: Desk) -> None:
    place = str(kept.root / "now.tar")
    kept.types("", "backup", place)
    assert restored(kept, "", place) == (0, "the files are those of the backup\n", "")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        pytest.param(["backup", "{root}/gone/x.tar"], 2, "gone/x.tar: No such file", id="no-folder"),
        pytest.param(["backup", "--frame", "gone", "{root}/x.tar"], 1, "there is no file", id="no-frame"),
        pytest.param(["restore", "{root}/gone.tar"], 2, "gone.tar: No such file", id="no-archive"),
        pytest.param(["restore", "{root}/system"], 1, "this is no backup of a policy", id="no-backup"),
        pytest.param(
            ["restore", "--frame", "x", "{root}/all.tar"], 1, "has no file include/x", id="not-in-it"
        ),
    ],
)
def test_what_cannot_be_done_is_told(kept: Desk, arguments: list[str], status: int, said: str) -> None:
    found, _, err = kept.types("", *(word.format(root=kept.root) for word in arguments))
    assert (found, err.startswith("qubes-policy: ")) == (status, True)
    assert said in err
    assert {path.name for path in Path(kept.root).glob("*.tar")} == {"all.tar"}
