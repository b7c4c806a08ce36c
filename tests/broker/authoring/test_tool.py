"""``qubes-policy``: what authors type, and what they are told."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.authoring.tool import main
from broker.client import call
from tests.broker.rig import PATIENCE, ROOT, serving

SYSTEM = {
    "domains": {
        "dom0": {"type": "AdminVM", "tags": []},
        "work": {"type": "AppVM", "tags": ["office"]},
        "mgmt": {"type": "AppVM", "tags": []},
        "relay": {"type": "AppVM", "tags": []},
        "far": {"type": "RemoteVM", "tags": [], "relayvm": "relay"},
    }
}


@pytest.fixture(name="root")
def fixture_root(tmp_path: Path) -> Path:
    for folder in ("etc/qubes/policy.d/include", "run/qubes/policy.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "system").write_text(json.dumps(SYSTEM))
    return tmp_path


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (root / "etc/qubes/policy.d" / name).write_text(content, encoding="utf-8")


def said(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors; the directory is taken out of both."""
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(root), *arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.replace(f"{root}/", ""), err.replace(f"{root}/", "")


def test_check_shows_every_error_with_its_line_and_column(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        root,
        {
            "10-a.policy": "ok * * * deny\n\tx\t* * * alow\nx * 日本 @bad deny\n",
            "20-b.policy": "!include include/b\n!include include/gone\n",
            "include/b": "x * evil\x1b[31m @bad deny\n",
        },
    )
    status, out, _ = said(capsys, root, "check")
    assert status == 1
    assert out.splitlines() == [
        "etc/qubes/policy.d/10-a.policy:2: column 10: expected allow, ask or deny, found 'alow'",
        "     x * * * alow",
        "             ^",
        "etc/qubes/policy.d/10-a.policy:3: column 8: expected a target, found '@bad'",
        "    x * 日本 @bad deny",
        "             ^",
        "etc/qubes/policy.d/include/b:1: column 15: expected a target, found '@bad'",
        "    x * evil?[31m @bad deny",
        "                  ^",
        "etc/qubes/policy.d/20-b.policy:2: column 10: expected a file, found 'include/gone'",
        "    !include include/gone",
        "             ^",
        "4 errors; with an error in any file, none of the policy comes into force",
    ]


def test_check_of_a_long_line_shows_what_is_around_the_error(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root, {"10-a.policy": f"x * {'a' * 500} @bad deny {'b' * 500}\n"})
    _, out, _ = said(capsys, root, "check")
    _, line, mark, _ = out.splitlines()
    assert len(line) <= 104
    assert line[mark.index("^") :].startswith("@bad deny")


def test_check_of_a_directory_is_of_it_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, {"10-a.policy": "broken\n"})
    (root / "mine").mkdir()
    (root / "mine/10-a.policy").write_text("x * * * deny\n")
    assert said(capsys, root, "check", str(root / "mine")) == (0, "ok: 1 rules in 1 files\n", "")
    status, out, _ = said(capsys, root, "check", str(root / "gone"))
    assert (status, out.splitlines()[0]) == (1, "gone: cannot be read: No such file or directory")


RULES = {
    "10-a.policy": "admin.vm.Start + mgmt @tag:home allow target=dom0\n!include include/b\n",
    "include/b": "admin.vm.Start * mgmt @tag:office allow target=dom0\nmy.Service * mgmt work allow\n",
    "30-far.policy": "far.Service * far work allow\n",
}


def test_explain_has_the_rule_its_includes_and_what_nearly_matched(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root, RULES)
    info = ("--system-info", str(root / "system"))
    status, out, err = said(capsys, root, "explain", "mgmt", "admin.vm.Start", "work", *info)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "allow  mgmt calls admin.vm.Start on work; it goes to dom0",
        "",
        "The rule that decides:",
        "  admin.vm.Start * mgmt @tag:office allow target=dom0",
        "  etc/qubes/policy.d/include/b:1",
        "  included by etc/qubes/policy.d/10-a.policy:2",
        "",
        "Rules before it that match in all fields but one:",
        "  but for  rule                                               place",
        "  target   admin.vm.Start + mgmt @tag:home allow target=dom0  etc/qubes/policy.d/10-a.policy:1",
    ]


@pytest.mark.parametrize(
    ("request_", "want"),
    [
        pytest.param(
            ("mgmt", "admin.vm.Start+x", "work"),
            {"decision": "allow", "argument": "+x", "goes_to": "dom0", "near_misses": []},
            id="allow",
        ),
        pytest.param(
            ("mgnt", "my.Service", "work"),
            {"decision": "deny", "reason": "no-rule", "rule": None, "matched_target": "work"},
            id="no-rule",
        ),
        pytest.param(
            ("mgmt", "my.Service", "@dispvm:gone"),
            {"decision": "deny", "reason": "not-dispvm-template", "matched_target": None},
            id="before-the-rules",
        ),
        pytest.param(
            ("relay", "far.Service", "work", "--requested-source", "far"),
            {"decision": "allow", "source": "relay", "requested_source": "far", "goes_to": "work"},
            id="for-a-remote-qube",
        ),
        pytest.param(
            ("relay", "far.Service", "work"),
            {"decision": "deny", "reason": "no-rule", "requested_source": None},
            id="relay-for-itself",
        ),
        pytest.param(
            ("work", "far.Service", "work", "--requested-source", "far"),
            {"decision": "deny", "reason": "requested-source-not-relay", "rule": None, "near_misses": []},
            id="not-its-relay",
        ),
    ],
)
def test_explain_for_programs(
    request_: tuple[str, ...],
    want: dict[str, Any],
    root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(root, RULES)
    _, out, _ = said(capsys, root, "explain", *request_, "--json", "--system-info", str(root / "system"))
    document = json.loads(out)
    assert {key: document[key] for key in want} == want


@pytest.mark.parametrize(
    ("request_", "hint"),
    [
        pytest.param(("mgnt", "x", "work"), "there is no qube 'mgnt'", id="source"),
        pytest.param(("mgmt", "x", "wrok"), "there is no qube 'wrok'", id="target"),
        pytest.param(("mgmt", "admin.x", "work"), "so the rule needs target=dom0", id="admin-call"),
        pytest.param(("work", "y", "work"), "a qube does not call itself", id="loopback"),
        pytest.param(
            ("relay", "y", "work", "--requested-source", "far"),
            "allow  relay for far calls y on work; it goes to work",
            id="remote",
        ),
        pytest.param(
            ("relay", "y", "work", "--requested-source", "gone"),
            "the source that it is made for does not exist",
            id="no-such-remote",
        ),
    ],
)
def test_explain_hints_at_what_may_be_overlooked(
    request_: tuple[str, ...], hint: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root, {"10-a.policy": "admin.x * * work allow\ny * * work allow\n"})
    _, out, _ = said(capsys, root, "explain", *request_, "--system-info", str(root / "system"))
    assert hint in out


@pytest.mark.parametrize(
    ("arguments", "status", "hint"),
    [
        pytest.param(("status",), 2, "run/qubes/policy.sock: nobody answers, neither qubesd", id="no-daemon"),
        pytest.param(("explain", "a", "b", "c"), 1, "try qubes-policy check", id="does-not-load"),
        pytest.param(("--config", "/gone", "check"), 2, "/gone: no such file", id="no-configuration"),
    ],
)
def test_what_is_not_to_be_had_is_said(
    arguments: tuple[str, ...], status: int, hint: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root, {"10-a.policy": "broken\n"})
    ended, out, err = said(capsys, root, *arguments)
    assert (ended, out) == (status, "")
    assert hint in err


def test_colour_is_for_terminals_that_have_it(root: Path) -> None:
    write(root, {"10-a.policy": "x * * * alow\n"})
    command = [sys.executable, "-m", "broker.authoring.tool", "--root", str(root), "check"]

    def shown(**environment: str) -> bytes:
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as screen:
            with os.fdopen(theirs, "wb") as terminal:
                variables = {**os.environ, "TERM": "xterm", **environment}
                subprocess.run(command, cwd=ROOT, stdout=terminal, env=variables, check=False)
            return screen.read(65536)

    assert b"\x1b[31m^\x1b[0m" in shown()
    assert b"\x1b" not in shown(NO_COLOR="1")
    assert b"\x1b" not in shown(TERM="dumb")


def test_a_daemon_tells_what_it_decides_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path, "admin.vm.List * @anyvm dom0 allow\n") as daemon:
        status, out, _ = said(capsys, tmp_path, "status", "--json")
        (first,) = json.loads(out)["daemons"]
        assert status == 0
        assert (first["program"], first["pid"]) == ("qubesd", daemon.process.pid)
        assert (first["in_force"], first["rules"], first["error"]) == (True, 1, None)
        assert [Path(file).name for file in first["files"]] == ["10-test.policy"]
        assert (len(first["digest"]), first["unwatched"]) == (64, [])
        assert abs(first["started"] - time.time()) < PATIENCE
        assert first["sockets"] == [
            "run/qubes/policy.sock",
            "etc/qubes-rpc/policy.EvalSimple",
            "etc/qubes-rpc/policy.EvalGUI",
        ]

        write(tmp_path, {"20-mine.policy": "x * * * alow\n"})
        deadline = time.monotonic() + PATIENCE
        while said(capsys, tmp_path, "status")[0] == 0:
            assert time.monotonic() < deadline
        status, out, _ = said(capsys, tmp_path, "status")
        assert status == 1
        assert "none: every judged call is denied" in out
        assert "20-mine.policy:1: column 9: expected allow, ask or deny, found 'alow'" in out

        # Nobody is locked out of dom0, and dom0 can ask why.
        daemon.create("alice")
        write(tmp_path, {"20-mine.policy": ""})
        while said(capsys, tmp_path, "status")[0] == 1:
            assert time.monotonic() < deadline
        _, out, _ = said(capsys, tmp_path, "explain", "alice", "admin.vm.List", "dom0")
        assert out.startswith("allow  alice calls admin.vm.List on dom0; it goes to dom0\n")
        assert b"class=AdminVM" in call(daemon.channel("alice"), "admin.vm.List", "dom0")


def test_no_qube_is_told_of_the_policy(tmp_path: Path) -> None:
    with serving(tmp_path, "* * * * allow target=dom0\n") as daemon:
        daemon.create("alice")
        for path in (daemon.channel("alice"), daemon.socket):
            with pytest.raises(Exception, match="no such method"):
                call(path, "internal.PolicyStatus")
