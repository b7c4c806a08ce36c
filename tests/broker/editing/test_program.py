"""The programs for calls about the policy: the environment in, bytes and an exit status out."""

from __future__ import annotations

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from broker.editing import program as policy_program
from broker.editing import register as policy_register
from broker.editing.edits import PolicyEdits, elsewhere
from broker.editing.restore import restore
from broker.editing.store import token_of
from qubesd.config import Config
from qubesd.errors import PolicySyntaxError
from tests.broker.editing.edits_rig import RULE

ROOT = Path(__file__).parents[3]


@pytest.fixture(name="place")
def fixture_place(tmp_path: Path) -> Path:
    """A policy directory; the log is beside it."""
    place = tmp_path / "policy.d"
    (place / "include").mkdir(parents=True)
    (place / "30-user.policy").write_text(RULE)
    return place


def environment(place: Path, **more: str) -> dict[str, str]:
    return {
        "QREXEC_POLICY_DIR": str(place),
        "QREXEC_POLICY_ADMIN_LOG": str(place.parent / "log"),
        "QREXEC_REMOTE_DOMAIN": "mgmt",
        **more,
    }


def run(place: Path, called: str, payload: bytes = b"", /, **more: str) -> tuple[int, bytes, bytes]:
    output, errors = BytesIO(), BytesIO()
    status = policy_program.run(
        environment(place, QREXEC_SERVICE_FULL_NAME=called, **more), BytesIO(payload), output, errors
    )
    return status, output.getvalue(), errors.getvalue()


@pytest.mark.parametrize(
    ("called", "payload", "wanted"),
    [
        pytest.param("policy.List", b"", (0, b"30-user\n", b""), id="list"),
        pytest.param(
            "policy.Get+30-user",
            b"",
            (0, token_of(RULE.encode()).encode() + b"\n" + RULE.encode(), b""),
            id="get",
        ),
        pytest.param("policy.Replace+31-x", b"new\n" + RULE.encode(), (0, b"", b""), id="replace"),
        pytest.param(
            "policy.Remove+31-x",
            b"any",
            (1, b"", b"PolicyAdminFileNotFoundException there is no such file"),
            id="no-file",
        ),
        pytest.param(
            "policy.Replace+30-user",
            b"any\ns.A\n",
            (
                1,
                b"",
                b"PolicyAdminSyntaxException 30-user.policy:1: column 4: expected SERVICE ARGUMENT SOURCE "
                b"TARGET ACTION, found only 1 of these words",
            ),
            id="syntax",
        ),
        pytest.param(
            "policy.Nothing", b"", (1, b"", b"PolicyAdminProtocolException no such call"), id="unknown"
        ),
    ],
)
def test_answer(called: str, payload: bytes, wanted: tuple[int, bytes, bytes], place: Path) -> None:
    assert run(place, called, payload) == wanted
    (line,) = (place.parent / "log").read_text().splitlines()
    assert f"'mgmt' '{called}'" in line


def test_a_file_that_is_no_utf_8_is_told_as_it_is(place: Path) -> None:
    (place / "include/raw").write_bytes(b"\xff\0\n")
    assert run(place, "policy.include.Get+raw") == (0, token_of(b"\xff\0\n").encode() + b"\n\xff\0\n", b"")


def test_a_file_of_the_largest_size_goes_through(place: Path) -> None:
    content = b"#" * 4 * 1024 * 1024
    assert run(place, "policy.Replace+31-x", b"new\n" + content)[0] == 0
    status, _, errors = run(place, "policy.Replace+31-x", b"any\n" + content + b"#")
    assert (status, errors) == (
        1,
        b"PolicyAdminSyntaxException 31-x.policy: a policy file has at most 4194304 bytes",
    )


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"QREXEC_REMOTE_DOMAIN": ""}, id="no-caller"),
        pytest.param({"QREXEC_POLICY_DIR": "/nonexistent/policy.d"}, id="no-directory"),
    ],
)
def test_what_else_goes_wrong_is_in_the_log_alone(more: dict[str, str], place: Path) -> None:
    status, output, errors = run(place, "policy.List", b"", **more)
    log = place.parent / "log"
    assert (status, output) == (2, b"")
    assert errors == f"the call was not carried out: see {log}".encode()
    assert "broke off" in log.read_text()


def test_a_call_that_cannot_be_logged_is_not_carried_out(place: Path) -> None:
    status, _, errors = run(place, "policy.Remove+30-user", b"any", QREXEC_POLICY_ADMIN_LOG=str(place))
    assert (status, errors) == (2, f"the call was not carried out: see {place}".encode())
    assert (place / "30-user.policy").exists()


def test_a_log_line_is_one_line(place: Path) -> None:
    run(place, "policy.Get+a\nfaked", QREXEC_REMOTE_DOMAIN="a\nb\x1b[2J")
    assert len((place.parent / "log").read_text().splitlines()) == 1
    assert "\x1b" not in (place.parent / "log").read_text()


def test_the_history_of_another_directory_lies_in_it(place: Path) -> None:
    run(place, "policy.Remove+30-user", b"any")
    entries = PolicyEdits(elsewhere(place, Config())).history()
    assert [str(entry.author) for entry in entries] == ["", "mgmt"]
    assert run(place, "policy.List") == (0, b"", b"")


def test_the_program_itself_takes_no_word_of_its_command_line_for_an_option(place: Path) -> None:
    """The qrexec daemon gives the argument, which the caller chose, on the command line."""
    variables = environment(place, QREXEC_SERVICE_FULL_NAME="policy.Get+--help")
    found = subprocess.run(
        [sys.executable, "-m", "broker.editing.program", "--help"],
        env={**os.environ, **variables},
        cwd=ROOT,
        input=b"",
        capture_output=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (1, b"")
    assert found.stderr.startswith(b"PolicyAdminFileNotFoundException ")


def register(place: Path, payload: bytes = b"key-1", **more: str) -> int:
    called = {"QREXEC_REQUESTED_TARGET": "work", "QREXEC_SERVICE_ARGUMENT": "u2f.Register", **more}
    return policy_register.run(environment(place, **called), BytesIO(payload))


def test_an_argument_is_registered_once(place: Path) -> None:
    registered = place / policy_register.REGISTERED
    assert register(place) == 0
    assert register(place, QREXEC_REQUESTED_TARGET="other") == 1
    assert register(place, b"key-2") == 0
    assert registered.read_text() == (
        "u2f.Register +key-1 work mgmt allow\nu2f.Register +key-2 work mgmt allow\n"
    )
    assert "already" in (place.parent / "log").read_text()


def test_what_is_registered_is_a_line_of_its_own(place: Path) -> None:
    (place / policy_register.REGISTERED).write_text("# by hand")
    assert register(place) == 0
    assert (
        place / policy_register.REGISTERED
    ).read_text() == "# by hand\nu2f.Register +key-1 work mgmt allow\n"


@pytest.mark.parametrize(
    ("payload", "more"),
    [
        pytest.param(b"", {}, id="empty"),
        pytest.param(b"a" * 65, {}, id="long"),
        pytest.param(b"a b", {}, id="blank"),
        pytest.param(b"a\n* * @anyvm @anyvm allow", {}, id="another-line"),
        pytest.param(b"a", {"QREXEC_REQUESTED_TARGET": "@anyvm"}, id="all-frontends"),
        pytest.param(b"a", {"QREXEC_REQUESTED_TARGET": "a b"}, id="two-frontends"),
        pytest.param(b"a", {"QREXEC_REMOTE_DOMAIN": "@anyvm"}, id="all-backends"),
        pytest.param(b"a", {"QREXEC_SERVICE_ARGUMENT": "*"}, id="all-services"),
        pytest.param(b"a", {"QREXEC_SERVICE_ARGUMENT": ""}, id="no-service"),
    ],
)
def test_what_is_not_registered(payload: bytes, more: dict[str, str], place: Path) -> None:
    assert register(place, payload, **more) == 1
    assert not (place / policy_register.REGISTERED).exists()
    assert "not registered" in (place.parent / "log").read_text()


def test_restore_takes_over_what_is_missing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "old"
    (source / "include").mkdir(parents=True)
    (source / "30-user.policy").write_text("s.Old * a b deny\n")
    (source / "20-new.policy").write_text("!include include/new\n")
    (source / "include/new").write_text(RULE)
    (source / "README").write_text("no policy\n")
    restore(source, PolicyEdits(elsewhere(place, Config())))
    assert capsys.readouterr().out.splitlines() == [
        "30-user.policy: left alone, it is there already",
        "include/new: restored",
        "20-new.policy: restored",
    ]
    assert (place / "30-user.policy").read_text() == RULE


def test_restore_takes_over_nothing_where_the_policy_would_not_be_whole(place: Path, tmp_path: Path) -> None:
    source = tmp_path / "old"
    source.mkdir()
    (source / "20-new.policy").write_text(RULE)
    (source / "25-broken.policy").write_text("!include include/not-there\n")
    with pytest.raises(PolicySyntaxError):
        restore(source, PolicyEdits(elsewhere(place, Config())))
    assert not (place / "20-new.policy").exists()
