"""Frames: what stands in a framed file reaches no further than the rule that includes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from policy_engine import (
    CONFIGURED,
    RUNTIME,
    Allowed,
    Asked,
    DelegationRule,
    Denied,
    DirectorySource,
    Inclusion,
    Loader,
    PolicyError,
    QubeFacts,
    Request,
    World,
    decide,
    hidden,
    inclusions,
    visible,
)
from policy_engine.loading import MAX_FRAMED_FILE, MAX_FRAMED_RULES
from policy_engine.read_dialect import MAX_FRAMED_ATOMS
from tests.policy_engine.catalogue import carried_out
from tests.policy_engine.delegated import DIALECT, loader
from tests.policy_engine.strategies import kind

TEAM = frozenset({"team"})
WORLD = World.of(
    [
        QubeFacts("dom0", "00000000-0000-0000-0000-000000000000", "AdminVM"),
        QubeFacts("a", "a-id", "AppVM", TEAM, default_dispvm="dvm"),
        QubeFacts("b", "b-id", "AppVM", TEAM, default_dispvm="other-dvm"),
        QubeFacts("dvm", "dvm-id", "AppVM", TEAM, template_for_dispvms=True),
        QubeFacts("other", "o-id", "AppVM"),
        QubeFacts("other-dvm", "od-id", "AppVM", template_for_dispvms=True),
    ]
)
FRAME = "s.*|t *|+x @tag:team @tag:team !include include/team\n"
FALL = "* * * * deny notify=no\n"


def framed(text: str, frame: str = "s.*|t * @tag:team @tag:team", fall: str = FALL) -> dict[str, str | bytes]:
    return {
        "1.policy": f"{DIALECT}{frame} !include include/team\n",
        "2.policy": fall,
        "include/team": DIALECT + text,
    }


def answer(files: Mapping[str, str | bytes], called: str, source: str, target: str) -> str:
    return kind(decide(loader(files).load(), Request.of(called, source, target), WORLD))


@pytest.mark.parametrize(
    ("rule", "called", "source", "target", "expected"),
    [
        pytest.param("* * * * allow", "s.A", "a", "b", "allowed", id="inside"),
        pytest.param("* * * * allow", "t", "a", "@dispvm:dvm", "allowed", id="disposable-of-the-team"),
        pytest.param("* * * * allow", "t", "a", "@dispvm", "allowed", id="own-disposable"),
        pytest.param("* * * * allow", "t", "b", "@dispvm", "rule", id="own-disposable-outside"),
        pytest.param("* * * * allow", "t", "a", "@dispvm:other-dvm", "rule", id="disposable-of-another"),
        pytest.param("* * * * allow", "u", "a", "b", "rule", id="service-outside"),
        pytest.param("* * * * allow", "s.A", "other", "b", "rule", id="source-outside"),
        pytest.param("* * * * allow", "s.A", "gone", "b", "rule", id="source-that-does-not-exist"),
        pytest.param("* * * * allow", "s.A", "a", "other", "rule", id="target-outside"),
        pytest.param("* * * * allow", "s.A", "a", "uuid:o-id", "rule", id="target-outside-by-uuid"),
        pytest.param("* * * * allow", "s.A", "a", "dom0", "rule", id="dom0-outside"),
        pytest.param("* * * * allow", "s.A", "a", "@default", "rule", id="no-target"),
        pytest.param("* * * * allow", "s.A", "a", "gone", "rule", id="target-that-does-not-exist"),
        pytest.param("* * * @default allow target=b", "s.A", "a", "", "rule", id="no-target-redirected"),
        pytest.param("* * * * allow target=b", "s.A", "a", "dvm", "allowed", id="redirect-inside"),
        pytest.param("* * * * allow target=other", "s.A", "a", "b", "frame", id="redirect-outside"),
        pytest.param("* * * * allow target=dom0", "s.A", "a", "b", "frame", id="redirect-to-dom0"),
        pytest.param(
            "* * * * allow target=@dispvm", "s.A", "a", "b", "allowed", id="redirect-to-a-disposable"
        ),
        pytest.param("* * * * allow target=@dispvm", "s.A", "b", "a", "frame", id="redirect-to-one-outside"),
        pytest.param(
            "* * * * allow target=@dispvm:other-dvm", "s.A", "a", "b", "frame", id="redirect-to-that"
        ),
        pytest.param("* * * * ask target=other", "s.A", "a", "b", "nothing-to-ask", id="ask-outside"),
        pytest.param("* * * * ask", "s.A", "a", "b", "asked", id="ask-inside"),
        pytest.param("* +x * * allow", "s.A+y", "a", "b", "rule", id="nothing-matches-goes-on"),
        pytest.param("admin.* * * * allow", "admin.vm.Start", "a", "b", "rule", id="admin-call-outside"),
        pytest.param("@read * * * deny", "s.A", "a", "b", "rule", id="set-without-a-call"),
    ],
)
def test_a_framed_rule_stays_in_its_frame(
    rule: str, called: str, source: str, target: str, expected: str
) -> None:
    assert answer(framed(f"{rule}\n"), called, source, target) == expected


def test_a_question_offers_what_lies_in_the_frame() -> None:
    asked = decide(loader(framed("* * * * ask\n")).load(), Request.of("s.A", "a", "b"), WORLD)
    assert isinstance(asked, Asked)
    assert asked.targets == ("@dispvm:dvm", "b", "dvm")


def test_a_framed_denial_takes_nothing_from_questions_outside_it() -> None:
    policy = loader(framed("* * * * deny\n", fall="s.A * * * ask\n")).load()
    asked = decide(policy, Request.of("s.A", "a", "other"), WORLD)
    assert isinstance(asked, Asked)
    assert asked.targets == ("@dispvm:other-dvm", "dom0", "other", "other-dvm")


def test_an_argument_of_a_frame_counts() -> None:
    files = framed("* * * * allow\n", "s.*|admin.vm.Create.AppVM|t +x|+y* * *")
    expected = {"s.A+x": "allowed", "s.A+yz": "allowed", "s.A+": "rule", "s.A+xz": "rule", "t+x": "allowed"}
    assert {called: answer(files, called, "a", "b") for called in expected} == expected
    files = framed("* +a*|+other * * allow\nadmin.* +a*|+other * * allow\n", "admin.* @tag:team * *")
    expected = {"admin.vm.Create.AppVM+a": "allowed", "admin.vm.Create.AppVM+other": "rule", "s.A+a": "rule"}
    assert {called: answer(files, called, "a", "b") for called in expected} == expected


CLOSING: dict[str, str | bytes | None] = {
    "missing": None,
    "empty": "",
    "stock-language": "* * * * allow\n",
    "wrong-dialect": "!dialect delegation-2\n* * * * allow\n",
    "after-a-rule": f"* * * * allow\n{DIALECT}",
    "bad-rule": f"{DIALECT}* * * * allow\ns| * * * allow\n",
    "not-utf-8": DIALECT.encode() + b"* * * * allow\n# \xff\n",
    "bom": b"\xef\xbb\xbf" + DIALECT.encode() + b"* * * * allow\n",
    "nested-frame": f"{DIALECT}* * * * allow\n* * * * !include include/other\n",
    "include": f"{DIALECT}* * * * allow\n!include include/other\n",
    "include-dir": f"{DIALECT}* * * * allow\n!include-dir include\n",
    "limit": f"{DIALECT}* * * * allow\n!limit a qubes=1\n",
    "user": f"{DIALECT}* * * * allow user=root\n",
    "redirected-admin-call": f"{DIALECT}* * * * allow\nadmin.* * * * allow target=b\n",
    "too-large": f"{DIALECT}* * * * allow\n#{'x' * MAX_FRAMED_FILE}\n",
    "too-many-rules": DIALECT + "* * * * allow\n" * (MAX_FRAMED_RULES + 1),
    "too-many-atoms": f"{DIALECT}!define @z ({'|'.join(['x'] * 999)})\n"
    + "* * @z * allow\n" * (MAX_FRAMED_ATOMS // 900),
    "deep": f"{DIALECT}!define @d0 (x)\n" + "".join(f"!define @d{n + 1} (!@d{n})\n" for n in range(1_500)),
}


@pytest.mark.parametrize("content", [pytest.param(CLOSING[name], id=name) for name in CLOSING])
def test_an_error_closes_the_frame_and_nothing_else(content: str | bytes | None) -> None:
    """What would have reached it is denied, disposables too; a later rule of the policy does not step in."""
    files: dict[str, str | bytes] = {
        "1.policy": f"{DIALECT}{FRAME}s.A * a other !include include/good\n",
        "2.policy": "* * * * allow user=fell-through\n",
        "include/good": f"{DIALECT}* * * * allow\n",
        "include/other": DIALECT,
    }
    if content is not None:
        files["include/team"] = content
    policy = loader(files).load()
    assert len(policy.warnings) == 1
    assert policy.warnings[0].endswith(f"the frame of {CONFIGURED}/1.policy:2 is closed")
    (closed,) = policy.closed
    assert (closed.path, closed.missing) == (f"{CONFIGURED}/include/team", content is None)
    for target in ("b", "uuid:b-id", "@dispvm:dvm", "@dispvm"):
        denied = decide(policy, Request.of("s.A+x", "a", target), WORLD)
        assert isinstance(denied, Denied)
        assert denied.rule is policy.rules[0]
    for called, source, target in [("u", "a", "b"), ("s.A", "other", "b"), ("s.A", "a", "@dispvm:other-dvm")]:
        allowed = decide(policy, Request.of(called, source, target), WORLD)
        assert isinstance(allowed, Allowed)
        assert allowed.user == "fell-through"
    other = decide(policy, Request.of("s.A", "a", "other"), WORLD)
    assert isinstance(other, Allowed)
    assert other.user is None
    assert visible(policy, WORLD, "a", "s.A") == ["dom0", "other", "other-dvm"]
    told = {error.file for error in loader(files).check()}
    assert told == {f"{CONFIGURED}/{'1.policy' if content is None else 'include/team'}"}


def test_the_errors_of_a_framed_file_are_all_told_in_its_own_lines() -> None:
    files = framed("s| * * * deny\n!include x\ns * * * allow user=x\n")
    found = [(error.file, error.kind, error.line, error.column) for error in loader(files).check()]
    team = f"{CONFIGURED}/include/team"
    assert found == [(team, "service-chars", 2, 3), (team, "frame", 3, 1), (team, "frame", 4, 15)]


def test_an_unreadable_file_closes_its_frame(tmp_path: Path) -> None:
    """A directory is no file, and a pipe is not waited for."""
    (tmp_path / "include" / "team").mkdir(parents=True)
    (tmp_path / "1.policy").write_text(DIALECT + FRAME)
    policy = Loader(DirectorySource(), [str(tmp_path)], catalogue=carried_out).load()
    assert [rule.action for rule in policy.rules] == [policy.rules[0].action]
    assert "is closed" in policy.warnings[0]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"1.policy": f"{DIALECT}{FRAME}!include include/team\n"}, id="frame-first"),
        pytest.param({"1.policy": f"{DIALECT}!include include/team\n{FRAME}"}, id="frame-last"),
        pytest.param(
            {
                "1.policy": DIALECT + FRAME,
                "2.policy": "!include-dir include/../include\n",
                "include/x.policy": "",
            },
            id="directory",
        ),
        pytest.param({"1.policy": f"{DIALECT}* * * * !include 1.policy\n"}, id="itself"),
        pytest.param(
            {"1.policy": f"{DIALECT}* * * * !include 2.policy\n", "2.policy": DIALECT}, id="top-level"
        ),
        pytest.param({"1.policy": f"{DIALECT}{FRAME}!include include/../include/team\n"}, id="another-path"),
    ],
)
def test_a_file_is_framed_always_or_never(files: dict[str, str]) -> None:
    if "include/x.policy" in files:
        files = {**files, "1.policy": f"{DIALECT}* * * * !include include/x.policy\n"}
    found = loader({"include/team": DIALECT, **files})
    with pytest.raises(PolicyError) as caught:
        found.load()
    assert caught.value.kind == "frame"
    assert "both with a frame and without one" in caught.value.message


def test_a_file_may_stand_in_several_frames() -> None:
    files = framed("* * * * allow\n")
    files["1.policy"] = f"{DIALECT}s.A * a b !include include/team\ns.B * b a !include include/team\n"
    calls = {("s.A", "a", "b"): "allowed", ("s.B", "b", "a"): "allowed", ("s.A", "b", "a"): "rule"}
    assert {call: answer(files, *call) for call in calls} == calls
    files["include/team"] = f"{DIALECT}s| * * * deny\n"
    assert len(loader(files).load().warnings) == 2
    assert len(loader(files).check()) == 1


def test_a_definition_is_known_in_its_own_file_only() -> None:
    files = framed("* * @mine * allow\n")
    files["1.policy"] = f"{DIALECT}!define @mine (a)\n{FRAME}* * @mine * deny\n"
    (warning,) = loader(files).load().warnings
    assert "include/team:2: column 5" in warning
    files["include/team"] = f"{DIALECT}!define @mine (b)\n* * @mine * allow\n"
    assert answer(files, "s.A", "b", "a") == "allowed"
    assert answer(files, "s.A", "a", "b") == "rule"


def test_a_closed_frame_tells_how_it_came_to_be_read() -> None:
    files = {"1.policy": "# first\n!include include/frames\n", "include/frames": DIALECT + FRAME}
    (rule,) = loader(files).load().rules
    assert isinstance(rule, DelegationRule)
    assert (rule.file, rule.line) == (f"{CONFIGURED}/include/frames", 2)
    assert list(inclusions(rule)) == [Inclusion(f"{CONFIGURED}/1.policy", 2)]


def test_a_frame_hides_what_lies_outside_it() -> None:
    policy = loader(framed("* * * * allow\n")).load()
    assert [name for name in WORLD.names if not hidden(policy, WORLD, "a", name)] == ["a", "b", "dvm"]


def test_edits_are_seen_whichever_file_they_are_in() -> None:
    """A loader keeps what it has read; it is that of this file in this frame."""
    contents = {
        f"{CONFIGURED}/{path}": str(text).encode() for path, text in framed("* * * * allow\n").items()
    }

    class Edited(DirectorySource):
        """The files of ``contents`` as they are now."""

        def names(self, directory: str) -> list[str]:
            return [path.rpartition("/")[2] for path in contents if path.rpartition("/")[0] == directory]

        def read(self, path: str, limit: int) -> bytes:
            return contents[path][:limit]

        def is_file(self, path: str) -> bool:
            return path in contents

    found = Loader(Edited(), [RUNTIME, CONFIGURED], catalogue=carried_out)

    def now(called: str = "s.A", target: str = "b") -> str:
        return kind(decide(found.load(), Request.of(called, "a", target), WORLD))

    assert (now(), now("t"), now("u")) == ("allowed", "allowed", "rule")
    contents[f"{CONFIGURED}/include/team"] = f"{DIALECT}s.A * * * deny\n* * * * allow\n".encode()
    assert (now(), now("t"), now("u")) == ("rule", "allowed", "rule")
    contents[f"{CONFIGURED}/1.policy"] = f"{DIALECT}u * a b !include include/team\n".encode()
    assert (now(), now("t"), now("u")) == ("rule", "rule", "allowed")
    contents[f"{CONFIGURED}/include/team"] = b"broken"
    assert (now("u"), len(found.load().warnings)) == ("rule", 1)
    contents[f"{CONFIGURED}/include/team"] = f"{DIALECT}* * * * allow\n".encode()
    assert (now("u"), found.load().warnings) == ("allowed", ())
    del contents[f"{CONFIGURED}/include/team"]
    assert (now("u"), len(found.load().warnings)) == ("rule", 1)
