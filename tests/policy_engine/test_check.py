"""``Loader.check``: every error of every file, each once, and the same first one as a load."""

from __future__ import annotations

import pytest

from policy_engine import CONFIGURED, LEGACY, RUNTIME, Loader, MemorySource, PolicyError

GOOD = "good * * * deny\n"


def loader(**files: str) -> Loader:
    contents = {f"{CONFIGURED}/{name}.policy": text.encode() for name, text in files.items()}
    contents[f"{CONFIGURED}/include/shared"] = b"$anyvm dom0 alow\n$anyvm dom0\n"
    return Loader(MemorySource(contents, (RUNTIME, CONFIGURED, LEGACY)))


def found(**files: str) -> list[str]:
    return [str(error).replace(f"{CONFIGURED}/", "") for error in loader(**files).check()]


def test_a_policy_that_loads_has_no_errors() -> None:
    assert found(a=GOOD, b="# nothing\n") == []


def test_every_line_of_every_file_is_told_of() -> None:
    assert found(
        a=GOOD + "x * * * alow\n" + GOOD + "x * @nothing * deny\nx *\n", b="!inclode x\n!include\n"
    ) == [
        "a.policy:2: column 9: expected allow, ask or deny, found 'alow'",
        "a.policy:4: column 5: expected a source, found '@nothing'",
        "a.policy:5: column 4: expected SERVICE ARGUMENT SOURCE TARGET ACTION, found only 2 of these words",
        "b.policy:1: column 1: expected !include, !include-dir, !include-service, !compat-4.0, "
        "found '!inclode'",
        "b.policy:2: column 1: expected 1 words after !include, found 0",
    ]


def test_what_is_included_is_checked_once_however_often_it_is_included() -> None:
    text = "!include-service a * include/shared\n!include-service b * include/shared\n!include gone\n"
    assert found(a=text, b="!include-dir gone\n") == [
        "include/shared:1: column 13: expected allow, ask or deny, found 'alow'",
        "include/shared:2: column 12: expected SOURCE TARGET ACTION, found only 2 of these words",
        "a.policy:3: column 10: expected a file, found 'gone'",
        "b.policy:1: column 14: expected a directory, found 'gone'",
    ]


def test_a_loop_a_bad_name_and_bytes_that_are_no_text_do_not_end_the_check() -> None:
    contents = {
        f"{CONFIGURED}/a.policy": b"!include a.policy\nx\n",
        f"{CONFIGURED}/B.policy": b"never read\n",
        f"{CONFIGURED}/c.policy": b"\xff\n",
        f"{CONFIGURED}/d.policy": b"x\n",
    }
    errors = Loader(MemorySource(contents, (CONFIGURED,))).check()
    assert [(error.kind, error.line) for error in errors] == [
        ("io", None),  # the runtime directory
        ("file-name", None),
        ("include-loop", None),
        ("field-count", 2),
        ("encoding", None),
        ("field-count", 1),
    ]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"a": "x\n", "b": "y\n"}, id="lines"),
        pytest.param({"a": "!include-service a * include/shared\n"}, id="included"),
        pytest.param({"a": "!include b.policy\nx\n", "b": "!include a.policy\n"}, id="loop"),
    ],
)
def test_the_first_error_is_that_of_a_load(files: dict[str, str]) -> None:
    with pytest.raises(PolicyError) as caught:
        loader(**files).load()
    assert str(loader(**files).check()[0]) == str(caught.value)


def test_a_check_leaves_nothing_behind_in_its_loader() -> None:
    checked = loader(a=GOOD + "x\n")
    assert len(checked.check()) == 1
    with pytest.raises(PolicyError):
        checked.load()
