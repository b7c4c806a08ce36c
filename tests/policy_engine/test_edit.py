"""A change of policy files is judged by what it does: to the files that it writes, and to all others."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from policy_engine import CONFIGURED, MAX_FILE, RUNTIME, Editing, MemorySource
from policy_engine.loading import MAX_DEPTH, MAX_FRAMED_FILE, MAX_FRAMED_RULES
from tests.policy_engine.catalogue import carried_out

DIALECT = "!dialect delegation-1\n"
RULE = "s.A * a b allow\n"
FRAME = f"{DIALECT}s.A * @tag:team @tag:team !include include/team\n"
FRAMED = {"1.policy": FRAME, "include/team": DIALECT + "* * a b allow\n"}

Files = Mapping[str, str | bytes | None]


def editing(files: Files, runtime: Files | None = None) -> Editing:
    contents = {f"{CONFIGURED}/{file}": _bytes(text) for file, text in files.items()}
    contents |= {f"{RUNTIME}/{file}": _bytes(text) for file, text in (runtime or {}).items()}
    known = {path: content for path, content in contents.items() if content is not None}
    source = MemorySource(known, [RUNTIME, f"{CONFIGURED}/include"])
    return Editing(source, [[CONFIGURED], [RUNTIME, CONFIGURED]], catalogue=carried_out)


def faults(
    files: Files, changes: Files, runtime: Files | None = None
) -> tuple[list[str], list[str], bool] | None:
    """What is wrong: kinds and places of the own errors, and of those elsewhere; whether all is framed."""
    found = editing(files, runtime).faults(placed(changes), may_close=False)
    if found is None:
        return None
    own, elsewhere = (
        [f"{error.kind} {error.file.removeprefix(f'{CONFIGURED}/')}:{error.line}" for error in errors]
        for errors in (found.own, found.elsewhere)
    )
    return own, elsewhere, found.framed


def placed(changes: Files) -> dict[str, bytes | None]:
    return {f"{CONFIGURED}/{file}": _bytes(text) for file, text in changes.items()}


def _bytes(text: str | bytes | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text


@pytest.mark.parametrize(
    ("files", "changes"),
    [
        pytest.param({}, {"1.policy": RULE}, id="new"),
        pytest.param({"1.policy": RULE}, {"1.policy": ""}, id="replaced"),
        pytest.param({"1.policy": RULE}, {"1.policy": None}, id="removed"),
        pytest.param({}, {"include/x": "anything at all\n"}, id="included-by-nothing"),
        pytest.param({}, {"1.policy": "!include include/x\n", "include/x": RULE}, id="with-its-include"),
        pytest.param(
            {"1.policy": "!include include/x\n", "include/x": RULE},
            {"1.policy": None, "include/x": None},
            id="removed-with-its-include",
        ),
        pytest.param({}, {"1.policy": FRAME}, id="frame-whose-file-is-still-to-be-written"),
        pytest.param({"1.policy": FRAME}, {"include/team": DIALECT}, id="framed-file-is-written"),
        pytest.param({"1.policy": "oops\n"}, {"1.policy": RULE}, id="repaired"),
        pytest.param(
            {"1.policy": "oops\n", "2.policy": "oops\n"}, {"1.policy": RULE}, id="one-of-two-repaired"
        ),
        pytest.param({"1.policy": "oops\n"}, {"2.policy": RULE}, id="broken-before-by-others"),
        pytest.param(
            {"1.policy": "!include include/x\n"}, {"include/x": RULE}, id="missing-include-is-written"
        ),
        pytest.param(
            {**FRAMED, "include/team": "oops"}, {"include/team": DIALECT}, id="frame-is-opened-again"
        ),
        pytest.param({"Bad.policy": ""}, {"Bad.policy": None}, id="bad-name-is-removed"),
        pytest.param(
            {"1.policy": FRAME, "include/team": "oops"},
            {"2.policy": f"{DIALECT}* * * * !include include/team\n"},
            id="another-frame-of-what-was-closed-before",
        ),
    ],
)
def test_a_change_that_breaks_nothing_is_made(files: Files, changes: Files) -> None:
    assert faults(files, changes) is None


@pytest.mark.parametrize(
    ("files", "changes", "own"),
    [
        pytest.param(
            {}, {"1.policy": "s.A\noops\n"}, ["field-count 1.policy:1", "field-count 1.policy:2"], id="all"
        ),
        pytest.param(
            {"1.policy": "oops\n"}, {"1.policy": "oops\n\n"}, ["field-count 1.policy:1"], id="not-repaired"
        ),
        pytest.param({}, {"include/x": b"\xff"}, ["encoding include/x:None"], id="no-utf-8"),
        pytest.param({}, {"include/x": b"\n" * (MAX_FILE + 1)}, ["io include/x:None"], id="too-large"),
        pytest.param({}, {"A.policy": RULE}, ["file-name A.policy:None"], id="capital-letter"),
        pytest.param(
            {}, {"1.policy": "!include include/x\n"}, ["not-a-file 1.policy:1"], id="include-of-nothing"
        ),
        pytest.param({}, {"1.policy": "!include 1.policy\n"}, ["include-loop 1.policy:None"], id="loop"),
        pytest.param(
            FRAMED, {"2.policy": "!include include/team\n"}, ["frame 2.policy:1"], id="framed-twice"
        ),
    ],
)
def test_a_change_is_refused_for_what_is_wrong_in_its_files(
    files: Files, changes: Files, own: list[str]
) -> None:
    assert faults(files, changes) == (own, [], False)


@pytest.mark.parametrize(
    ("files", "changes", "elsewhere", "framed"),
    [
        pytest.param(
            {"1.policy": "!include include/x\n", "include/x": RULE},
            {"include/x": None},
            ["not-a-file 1.policy:1"],
            False,
            id="still-included",
        ),
        pytest.param(FRAMED, {"include/team": None}, ["not-a-file 1.policy:2"], True, id="still-framed"),
        pytest.param(
            {"include/team": "oops"}, {"1.policy": FRAME}, ["frame include/team:None"], False, id="frame"
        ),
        pytest.param(
            {"1.policy": "!include include/x\n", "include/x": RULE},
            {"include/x": "!include 1.policy\n"},
            ["include-loop 1.policy:None"],
            False,
            id="loop",
        ),
    ],
)
def test_a_change_is_refused_for_what_it_breaks_elsewhere(
    files: Files, changes: Files, elsewhere: list[str], framed: bool
) -> None:
    assert faults(files, changes) == ([], elsewhere, framed)


ESCAPES = {
    "stock-language": RULE,
    "include": f"{DIALECT}!include include/other\n",
    "include-directory": f"{DIALECT}!include-dir .\n",
    "frame-in-a-frame": f"{DIALECT}* * * * !include include/other\n",
    "limit": f"{DIALECT}!limit @tag:team qubes=1000\n",
    "user": f"{DIALECT}* * * * allow user=root\n",
    "broken-line": f"{DIALECT}* * * * alow\n",
    "no-utf-8": DIALECT.encode() + b"# \xff\n",
    "empty-dialect": "!dialect\n",
    "too-large": f"{DIALECT}{'#' * MAX_FRAMED_FILE}\n",
    "too-many-rules": DIALECT + "* * * * allow\n" * (MAX_FRAMED_RULES + 1),
}
"""What the owner of a frame may try to put into its file."""


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in ESCAPES.items()])
def test_the_owner_of_a_frame_is_told_of_its_own_lines_alone(content: str | bytes) -> None:
    """The candidate is looked at in each frame; the answer is the same whatever the rest of the policy is."""
    told = []
    for others in (
        {"1.policy": FRAME},
        {
            "1.policy": f"{FRAME}s.B * secret-qube @tag:secret-tag !include include/team\n",
            "2.policy": "oops\n",
        },
        {"secret.policy": FRAME.replace("@tag:team", "@tag:secret-tag"), "include/other": "oops\n"},
    ):
        found = editing({**others, "include/team": DIALECT}).faults(placed({"include/team": content}))
        assert found is not None
        assert found.framed
        assert found.elsewhere == ()
        told.append([str(error) for error in found.own])
    assert told[0]
    assert told[0] == told[1] == told[2]
    assert "secret" not in str(told)


def test_what_needs_a_framed_file_is_not_in_it() -> None:
    found = editing(FRAMED).faults(placed({"include/team": None}), may_close=False)
    assert found is not None
    assert (found.own, found.framed) == ((), True)


def test_a_policy_that_cannot_be_looked_at_to_its_end_is_not_changed() -> None:
    """A bound ends the reading before the frame is come to; the file may be framed, and counts as such."""
    deep = {f"include/{depth}": f"!include include/{depth + 1}\n" for depth in range(MAX_DEPTH)}
    files = {"0.policy": "!include include/0\n", **deep, f"include/{MAX_DEPTH}": "", **FRAMED}
    found = editing(files).faults(placed({"include/team": DIALECT}))
    assert found is not None
    assert (found.own, found.framed) == ((), True)
    assert editing(files).faults(placed({"0.policy": ""})) is None


def test_a_frame_may_be_left_without_its_file_by_who_says_so() -> None:
    """A rollback to the time before the file was written closes the frame, as it was then."""
    assert editing(FRAMED).faults(placed({"include/team": None})) is None


@pytest.mark.parametrize(
    ("runtime", "changes", "refused"),
    [
        pytest.param({"1.policy": ""}, {"1.policy": "oops\n"}, True, id="shadowed-by-it"),
        pytest.param({"1.policy": "oops\n"}, {"2.policy": RULE}, False, id="broken-before"),
        pytest.param(
            {"9.policy": f"!include {CONFIGURED}/include/x\n"},
            {"include/x": None},
            True,
            id="included-from-it",
        ),
    ],
)
def test_the_runtime_directory_counts_as_well(runtime: Files, changes: Files, refused: bool) -> None:
    assert (faults({"include/x": RULE}, changes, runtime) is not None) is refused


@pytest.mark.parametrize(
    ("files", "changes", "order"),
    [
        pytest.param(
            {},
            {"1.policy": "!include include/a\n", "include/a": "!include include/b\n", "include/b": RULE},
            ["include/a", "include/b", "1.policy"],
            id="included-first",
        ),
        pytest.param(
            {"1.policy": "!include include/a\n", "include/a": RULE},
            {"1.policy": None, "include/a": None},
            ["1.policy", "include/a"],
            id="included-last-when-they-go",
        ),
        pytest.param(
            {"1.policy": "!include include/a\n", "include/a": RULE},
            {"1.policy": "!include include/b\n", "include/a": None, "include/b": RULE},
            ["include/b", "1.policy", "include/a"],
            id="moved",
        ),
        pytest.param(
            {"2.policy": "!include include/team\n", "include/team": DIALECT},
            {"1.policy": FRAME, "2.policy": ""},
            ["2.policy", "1.policy"],
            id="framed-after-it-was-not",
        ),
        pytest.param(
            {"1.policy": "", "2.policy": "!include 1.policy\n"},
            {"1.policy": "!include 2.policy\n", "2.policy": ""},
            ["2.policy", "1.policy"],
            id="turned-round",
        ),
    ],
)
def test_an_order_in_which_the_policy_loads_after_each_step(
    files: Files, changes: Files, order: list[str]
) -> None:
    judge = editing(files)
    candidate = placed(changes)
    found = judge.order(candidate)
    assert [path.removeprefix(f"{CONFIGURED}/") for path in found] == order
    for steps in range(len(found) + 1):
        assert judge.loads({path: candidate[path] for path in found[:steps]})
