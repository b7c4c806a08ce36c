"""The Policy Admin API: every error, and their order (``spec/policy-daemon.md`` 8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.editing.admin import answer
from broker.editing.entry import Author
from broker.editing.names import LONGEST
from broker.editing.store import token_of
from qubesd.errors import (
    BadPolicyName,
    BadPolicyPath,
    NoSuchPolicyFile,
    PolicyAdminError,
    PolicyProtocolError,
    PolicySyntaxError,
    PolicyTokenError,
)
from tests.broker.editing.edits_rig import FRAME, ME, RULE, Desk

USER = token_of(RULE.encode()).encode()
OTHER = b"sha256:" + b"0" * 64
FILES = {
    "30-user.policy": RULE,
    "40-b.policy": "* * a b ask\ns.A +B a b deny\ns.C * a b deny\n!include include/some\n",
    "include/some": "s.A * a b allow\n",
    "include/loose": "anything\n",
    "include/Big_1": "",
}


@pytest.fixture(name="desk")
def fixture_desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path, FILES)
    (desk.directory / "link.policy").symlink_to("30-user.policy")
    (desk.directory / "away.policy").symlink_to("../elsewhere.policy")
    (desk.root / "elsewhere.policy").write_text("s.E * a b deny\n")
    (desk.directory / "folder.policy").mkdir()
    (desk.directory / "notes.txt").write_text("no policy\n")
    return desk


def ask(desk: Desk, called: str, payload: bytes = b"") -> bytes | type[PolicyAdminError]:
    """The answer to ``SERVICE+ARGUMENT``, or the class of the error."""
    service, _, argument = called.partition("+")
    try:
        return answer(desk.edits, ME, service, argument, payload)
    except PolicyAdminError as error:
        return type(error)


@pytest.mark.parametrize(
    ("called", "payload", "wanted"),
    [
        pytest.param("policy.List", b"", b"30-user\n40-b\naway\nlink\n", id="list"),
        pytest.param("policy.include.List", b"", b"Big_1\nloose\nsome\n", id="list-include"),
        pytest.param("policy.Get+30-user", b"", USER + b"\n" + RULE.encode(), id="get"),
        pytest.param("policy.Get+link", b"", USER + b"\n" + RULE.encode(), id="get-link-beside"),
        pytest.param(
            "policy.include.Get+loose", b"", token_of(b"anything\n").encode() + b"\nanything\n", id="inc"
        ),
        pytest.param("policy.GetFiles+s.A", b"", b"30-user\n40-b\nsome\nlink\n", id="files"),
        pytest.param("policy.GetFiles+s.D", b"", b"40-b\n", id="files-of-a-wildcard"),
        pytest.param("policy.Replace+30-user", USER + b"\n", b"", id="replace"),
        pytest.param("policy.Replace+31-new", b"new\n" + RULE.encode(), b"", id="replace-new"),
        pytest.param("policy.Replace+31-new", b"any\n", b"", id="replace-any"),
        pytest.param("policy.include.Replace+New", b"new\nwhatever", b"", id="replace-include"),
        pytest.param("policy.Remove+30-user", USER, b"", id="remove"),
        pytest.param("policy.include.Remove+loose", b"any", b"", id="remove-any"),
        # the order of checks: each row has what the rows below it are refused for as well
        pytest.param("policy.Nothing+a/b", b"x", PolicyProtocolError, id="character"),
        pytest.param("policy.Nothing+a", b"x", PolicyProtocolError, id="no-such-call"),
        pytest.param("policy.List+a", b"x", PolicyProtocolError, id="unexpected-argument"),
        pytest.param("policy.Get+.a", b"x", PolicyProtocolError, id="unexpected-payload"),
        pytest.param("policy.Replace+a.b", b"oops", BadPolicyName, id="name"),
        pytest.param("policy.Replace+", b"oops", BadPolicyName, id="empty-name"),
        pytest.param("policy.Replace+Foo", b"oops", BadPolicyName, id="name-that-no-loader-takes"),
        pytest.param("policy.Replace+" + "a" * LONGEST, b"oops", BadPolicyName, id="long-name"),
        pytest.param("policy.Replace+away", b"oops", BadPolicyPath, id="path"),
        pytest.param("policy.Replace+30-user", b"", PolicyProtocolError, id="no-payload"),
        pytest.param("policy.Replace+30-user", b"any", PolicyProtocolError, id="no-token-line"),
        pytest.param("policy.Replace+30-user", b"all\noops", PolicyProtocolError, id="unknown-token"),
        pytest.param("policy.Replace+30-user", b"\noops", PolicyProtocolError, id="empty-token"),
        pytest.param("policy.Replace+30-user", USER.upper() + b"\noops", PolicyProtocolError, id="capitals"),
        pytest.param(
            "policy.Replace+30-user", b"a" * 10_000 + b"\noops", PolicyProtocolError, id="long-token"
        ),
        pytest.param("policy.Replace+30-user", b"new\noops", PolicyTokenError, id="there-already"),
        pytest.param("policy.Replace+30-user", OTHER + b"\noops", PolicyTokenError, id="changed-meanwhile"),
        pytest.param("policy.Replace+31-new", OTHER + b"\noops", PolicyTokenError, id="gone-meanwhile"),
        pytest.param("policy.Replace+30-user", b"any\noops", PolicySyntaxError, id="syntax"),
        pytest.param("policy.Replace+30-user", b"any\n\xff", PolicySyntaxError, id="no-utf-8"),
        pytest.param("policy.include.Replace+loose", b"any\n\xff", PolicySyntaxError, id="no-utf-8-included"),
        pytest.param("policy.include.Replace+some", b"any\noops", PolicySyntaxError, id="syntax-included"),
        pytest.param("policy.Get+31-new", b"", NoSuchPolicyFile, id="get-nothing"),
        pytest.param("policy.Get+away", b"", BadPolicyPath, id="get-elsewhere"),
        pytest.param("policy.Get+folder", b"", BadPolicyPath, id="get-folder"),
        pytest.param("policy.include.Get+..", b"", BadPolicyName, id="dots"),
        pytest.param("policy.Remove+31-new", b"any", NoSuchPolicyFile, id="remove-nothing"),
        pytest.param("policy.Remove+31-new", b"new", NoSuchPolicyFile, id="remove-new-nothing"),
        pytest.param("policy.Remove+31-new", OTHER, PolicyTokenError, id="remove-gone-meanwhile"),
        pytest.param("policy.Remove+30-user", b"new", PolicyTokenError, id="remove-new"),
        pytest.param("policy.Remove+30-user", OTHER, PolicyTokenError, id="remove-changed-meanwhile"),
        pytest.param("policy.Remove+30-user", USER + b"\n", PolicyProtocolError, id="remove-with-line-end"),
        pytest.param("policy.Remove+30-user", b"", PolicyProtocolError, id="remove-without-token"),
        pytest.param("policy.include.Remove+some", b"any", PolicySyntaxError, id="remove-included"),
        pytest.param("policy.GetFiles+", b"", PolicyProtocolError, id="files-of-nothing"),
        pytest.param("policy.GetFiles+s+a", b"", PolicyProtocolError, id="files-of-no-service"),
    ],
)
def test_answer(called: str, payload: bytes, wanted: bytes | type[PolicyAdminError], desk: Desk) -> None:
    before = desk.files()
    found = ask(desk, called, payload)
    assert found == wanted
    if found != b"":
        assert desk.files() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("s.A * a b allow\nx\n", "30-user.policy:2: column 2: expected SERVICE", id="line"),
        pytest.param("x\n" * 30, "and 40 more", id="many"),
    ],
)
def test_a_syntax_error_names_file_and_line(content: str, message: str, desk: Desk) -> None:
    with pytest.raises(PolicySyntaxError) as caught:
        answer(desk.edits, ME, "policy.Replace", "30-user", b"any\n" + content.encode())
    assert message in str(caught.value)
    assert str(desk.root) not in str(caught.value)


def test_the_owner_of_a_frame_is_told_of_its_own_file_alone(desk: Desk) -> None:
    desk.write("50-secret.policy", FRAME)
    desk.write("60-broken.policy", "oops\n")
    assert ask(desk, "policy.include.Replace+team", b"new\n!dialect delegation-1\n") == b""
    for verb, payload in (("Replace", b"any\n!dialect delegation-1\n* * * * alow\n"), ("Remove", b"any")):
        with pytest.raises(PolicySyntaxError) as caught:
            answer(desk.edits, Author("owner"), f"policy.include.{verb}", "team", payload)
        assert all(
            line.startswith(("include/team:2:", "the rest of")) for line in str(caught.value).split("\n")
        )


def test_dom0_is_told_what_needs_a_framed_file(desk: Desk) -> None:
    desk.write("50-frame.policy", FRAME)
    answer(desk.edits, ME, "policy.include.Replace", "team", b"new\n!dialect delegation-1\n")
    with pytest.raises(PolicySyntaxError, match=r"^50-frame\.policy:2: column \d+: expected a file"):
        answer(desk.edits, ME, "policy.include.Remove", "team", b"any")


def test_a_file_beyond_the_directory_is_told_by_its_path(desk: Desk) -> None:
    beyond = desk.root / "elsewhere.policy"
    desk.write("35-more.policy", f"!include {beyond}\n")
    assert ask(desk, "policy.GetFiles+s.E") == f"{beyond}\n40-b\naway\n".encode()


def test_what_is_no_file_for_a_loader_is_in_no_list(desk: Desk) -> None:
    for name in (".hidden.policy", "a b.policy", "a\nb.policy", "\x1b.policy"):
        desk.write(name, "")
    assert ask(desk, "policy.List") == b"30-user\n40-b\naway\nlink\n"


def test_a_link_to_a_folder_elsewhere_is_no_include_folder(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (desk.directory / "include").rmdir()
    (desk.root / "other").mkdir()
    (desk.directory / "include").symlink_to(desk.root / "other")
    assert ask(desk, "policy.include.Replace+x", b"any\n") is BadPolicyPath
    assert ask(desk, "policy.include.Get+x") is BadPolicyPath
    assert list((desk.root / "other").iterdir()) == []


def test_an_include_folder_is_made_where_there_is_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (desk.directory / "include").rmdir()
    assert ask(desk, "policy.include.List") == b""
    assert ask(desk, "policy.include.Replace+x", b"new\nhello") == b""
    assert desk.files() == {"include/x": b"hello"}
