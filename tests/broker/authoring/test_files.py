"""The plain verbs of ``qubes-policy``, under their own names and the stock ones."""

from __future__ import annotations

import socket

import pytest

from tests.broker.authoring.typing_rig import GRANT, Desk, fixture_desk

__all__ = ["fixture_desk"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "20-a\n30-b\n", id="the-list-is-the-default"),
        pytest.param(["-l"], "20-a\n30-b\n", id="stock-list"),
        pytest.param(["-l", "include/"], "team\n", id="stock-list-of-included"),
        pytest.param(["include/"], "team\n", id="stock-included-without-an-option"),
        pytest.param(["--list"], "20-a\n30-b\n", id="stock-list-long"),
        pytest.param(["list"], "20-a\n30-b\n", id="list"),
        pytest.param(["list", "include/"], "team\n", id="list-of-included"),
        pytest.param(["-g", "20-a"], "# a\n", id="stock-get"),
        pytest.param(["--get", "include/team"], "# team\n", id="stock-get-long"),
        pytest.param(["get", "include/team"], "# team\n", id="get"),
    ],
)
def test_reading(desk: Desk, arguments: list[str], said: str) -> None:
    desk.write(**{"_20-a": "# a\n", "_30-b": "!include include/team\n", "include_team": "# team\n"})
    assert desk.types("", *arguments) == (0, said, "")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        pytest.param(["-r", "30-b"], "_30-b", id="stock"),
        pytest.param(["--replace", "include/team"], "include_team", id="stock-included"),
        pytest.param(["set", "30-b"], "_30-b", id="set"),
        pytest.param(["set", "30-b", "--if", "new"], "_30-b", id="set-new"),
    ],
)
def test_writing_and_removing(desk: Desk, arguments: list[str], name: str) -> None:
    assert desk.types(GRANT, *arguments) == (0, "", "")
    assert desk.path(name).read_text() == GRANT
    assert desk.types("", "remove", arguments[1]) == (0, "", "")
    assert not desk.path(name).exists()


def test_a_file_is_set_from_another_one_if_it_is_still_what_it_was(desk: Desk) -> None:
    desk.write(**{"_30-b": "# was\n"})
    token = desk.types("", "get", "--token", "30-b")[1].partition("\n")[0]
    (desk.root / "mine").write_text(GRANT)
    asked = ["set", "30-b", "--from", str(desk.root / "mine"), "--if", token]
    assert desk.types("", *asked) == (0, "", "")
    status, _, err = desk.types("", *asked)
    assert (status, err) == (1, "qubes-policy: the file was changed meanwhile: get it again\n")


def test_what_a_daemon_beside_a_stock_qubesd_would_refuse_is_refused(desk: Desk) -> None:
    limited = "!dialect delegation-1\n!limit mgmt qubes=1\n"
    assert desk.types(limited, "set", "30-b")[0] == 0
    (desk.root / "run/qubes").mkdir(exist_ok=True)
    desk.patch.chdir(desk.root)
    with socket.socket(socket.AF_UNIX) as telling:
        telling.bind("run/qubes/policy-status.sock")
        status, _, err = desk.types(limited + "\n", "set", "30-b")
    assert status == 1
    assert "30-b.policy:2: column 1: " in err


@pytest.mark.parametrize(
    ("arguments", "content", "status", "said"),
    [
        pytest.param(["-g", "gone"], "", 1, "there is no such file", id="get"),
        pytest.param(["-d", "gone"], "", 1, "there is no such file", id="remove"),
        pytest.param(["-r", "30-b"], "oops\n", 1, "30-b.policy:1: column", id="broken"),
        pytest.param(["-g", "30-b.policy"], "", 1, "expected a name of", id="bad-name"),
        pytest.param(["-l", "30-b"], "", 1, "the list is of all files", id="bad-list"),
        pytest.param(["remove", "include/team"], "", 1, "30-a.policy:1: column", id="still-included"),
        pytest.param(["set", "30-b", "--if", "x"], GRANT, 1, "expected a token", id="bad-token"),
        pytest.param(["-g", "30-a", "check"], "", 2, "one of them says what to do", id="two-things"),
        pytest.param(["set", "30-b", "--from", "/nonexistent"], "", 2, "No such file", id="unreadable"),
    ],
)
def test_what_is_refused(desk: Desk, arguments: list[str], content: str, status: int, said: str) -> None:
    desk.write(**{"_30-a": "!include include/team\n", "include_team": "# team\n"})
    found, out, err = desk.types(content, *arguments)
    assert (found, out) == (status, "")
    assert err.startswith(("qubes-policy: ", "usage: "))
    assert said in err
    assert {path.name for path in (desk.root / "etc/qubes/policy.d").rglob("*")} == {
        *("30-a.policy", "include", "team")
    }


@pytest.mark.parametrize(
    ("arguments", "content", "status", "said"),
    [
        pytest.param(["set", "30-b"], GRANT, 0, "mgmt may now call:\n  admin.vm.Start on work", id="new"),
        pytest.param(
            ["set", "30-b"],
            "admin.vm.Start * mgmt work allow\n",
            0,
            "30-b.policy:1: dom0 carries admin.vm.Start out, and this rule lets it go to work, where",
            id="misdirected",
        ),
        pytest.param(["set", "20-a"], "# b\n", 0, "-# a\n+# b\n\nIt means the same", id="the-same"),
        pytest.param(["set", "20-a"], "oops\n", 1, "20-a.policy:1: column", id="broken"),
        pytest.param(["set", "20-a", "--if", "new"], GRANT, 1, "the file is there already", id="not-new"),
        pytest.param(["remove", "20-a"], "", 0, "--- 20-a\n+++ /dev/null\n", id="remove"),
        pytest.param(["remove", "gone"], "", 1, "there is no such file", id="remove-none"),
        pytest.param(["remove", "include/team"], "", 1, "30-c.policy:1: column", id="still-included"),
        pytest.param(
            ["set", "30-c"],
            "* * @anyvm @anyvm deny\nadmin.vm.Start * mgmt work allow target=dom0\n",
            0,
            "30-c.policy:1: this denies every call before 1 rules",
            id="warned",
        ),
    ],
)
def test_a_dry_run_shows_and_changes_nothing(
    desk: Desk, arguments: list[str], content: str, status: int, said: str
) -> None:
    desk.write(**{"_20-a": "# a\n", "_30-c": "!include include/team\n", "include_team": "# team\n"})
    before = {path: path.read_bytes() for path in (desk.root / "etc").rglob("*") if path.is_file()}
    asked = [*arguments, "--dry-run", f"--system-info={desk.root}/system"]
    found, out, err = desk.types(content, *asked)
    assert (found, said in out + err) == (status, True), out + err
    assert {path: path.read_bytes() for path in (desk.root / "etc").rglob("*") if path.is_file()} == before
