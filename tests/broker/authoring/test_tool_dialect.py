"""``qubes-policy`` on files in the delegation dialect: closed frames, and what a rule asks for besides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.broker.authoring.test_tool import fixture_root, said, write

__all__ = ["fixture_root"]

SYSTEM = {
    "domains": {
        "dom0": {"type": "AdminVM", "tags": []},
        "ann": {"type": "AppVM", "tags": ["operator", "team-a"]},
        "web": {"type": "AppVM", "tags": ["managed-by-ann", "team-a"]},
    }
}
ROLE = """\
!dialect delegation-1
!define @mine (@tag:managed-by-{source})
admin.vm.property.Set +memory @tag:operator @mine allow value=256..4096
admin.vm.tag.Set * @tag:operator @mine allow
admin.vm.Kill * @tag:operator @mine deny
admin.* * @tag:team-a @tag:team-a !include include/team-a
"""
TEAM = "!dialect delegation-1\nadmin.vm.Start * ann * ask\n"
WRONG = "etc/qubes/policy.d/include/team-a:3: column 25: expected allow, ask, deny or !include, found 'alow'"
FRAME = "etc/qubes/policy.d/10-role.policy:6"


@pytest.mark.parametrize(
    ("team", "status", "wanted"),
    [
        pytest.param(TEAM, 0, ["ok: 4 rules in 2 files"], id="in-order"),
        pytest.param(
            TEAM + "admin.vm.Kill * ann web alow\n",
            1,
            [
                WRONG,
                "    admin.vm.Kill * ann web alow",
                "                            ^",
                f"warning the frame of {FRAME} is closed",
                "1 error; only what is in a closed frame is denied, the rest is in force",
            ],
            id="error",
        ),
        pytest.param(
            None,
            0,
            [
                "warning etc/qubes/policy.d/10-role.policy:6: column 44: expected a file, "
                f"found 'include/team-a'; the frame of {FRAME} is closed",
                "ok: 4 rules in 1 files",
            ],
            id="missing",
        ),
    ],
)
def test_check_says_which_frame_is_closed_and_that_the_rest_is_in_force(
    team: str | None, status: int, wanted: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root, {"10-role.policy": ROLE} | ({} if team is None else {"include/team-a": team}))
    code, out, err = said(capsys, root, "check")
    assert (code, out.splitlines(), err) == (status, wanted, "")


def test_an_error_outside_of_a_frame_keeps_the_whole_policy_out_of_force(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root, {"10-role.policy": ROLE + "oops\n", "include/team-a": "oops\n"})
    code, out, _ = said(capsys, root, "check")
    assert code == 1
    assert f"{FRAME.replace(':6', ':7')}: column 5: expected SERVICES" in out
    assert out.splitlines()[-1].endswith("none of the policy comes into force")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("@read:local * ann web allow", "in the dialect only by a daemon", id="rows"),
        pytest.param(
            "admin.vm.property.Set +memory ann web allow value=1..2", "value= needs a daemon", id="value"
        ),
        pytest.param("!limit ann qubes=1", "!limit needs a daemon", id="limit"),
        pytest.param("admin.vm.Start * ann web allow", None, id="nothing-besides"),
    ],
)
def test_check_alone_reads_as_a_daemon_that_carries_nothing_out(
    text: str, wanted: str | None, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root, {"10-a.policy": f"!dialect delegation-1\n{text}\n"})
    assert said(capsys, root, "check")[0] == 0
    code, out, _ = said(capsys, root, "check", "--alone")
    assert (code, wanted in out if wanted else "ok:" in out) == (0 if wanted is None else 1, True)


def explained(root: Path, capsys: pytest.CaptureFixture[str], *asked: str) -> str:
    write(root, {"10-role.policy": ROLE, "include/team-a": TEAM})
    (root / "system").write_text(json.dumps(SYSTEM))
    return said(capsys, root, "explain", *asked, "--system-info", str(root / "system"))[1]


def test_explain_shows_what_a_rule_asks_for_besides(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(root, capsys, "ann", "admin.vm.property.Set+memory", "web")
    assert out.splitlines() == [
        "allow  ann calls admin.vm.property.Set+memory on web; it goes to dom0",
        "",
        "The rule that decides:",
        "  admin.vm.property.Set +memory @tag:operator @mine allow value=256..4096",
        "  etc/qubes/policy.d/10-role.policy:3",
        "",
        "What it asks for besides, or the call is denied:",
        "  the payload is 256..4096",
        "  what else it touches is @tag:managed-by-ann, or selected by the argument or value",
    ]


@pytest.mark.parametrize(
    ("argument", "refused"),
    [
        pytest.param("operator", "rules build on what it changes", id="confers"),
        pytest.param("created-by-ann", "it is dom0's alone", id="reserved"),
        pytest.param("plain", None, id="plain"),
    ],
)
def test_explain_says_what_no_payload_helps(
    argument: str, refused: str | None, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = explained(root, capsys, "ann", f"admin.vm.tag.Set+{argument}", "web")
    hint = f"      it is refused all the same: {refused}"
    assert any(line.startswith(hint) for line in out.splitlines()) is (refused is not None)


@pytest.mark.parametrize(
    ("service", "wanted"),
    [
        pytest.param(
            "admin.vm.property.Set+memory",
            {
                "selects": "@tag:managed-by-ann",
                "value": "256..4096",
                "framed_from": None,
                "framed_to": None,
                "refusal": None,
            },
            id="value",
        ),
        pytest.param(
            "admin.vm.Start",
            {
                "selects": "*",
                "value": None,
                "framed_from": "@tag:team-a",
                "framed_to": "@tag:team-a",
                "refusal": None,
            },
            id="frame",
        ),
        pytest.param("admin.vm.Kill", None, id="denied"),
    ],
)
def test_explain_for_programs_has_it_too(
    service: str, wanted: dict[str, Any] | None, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(explained(root, capsys, "ann", service, "web", "--json"))
    assert document["demands"] == wanted
