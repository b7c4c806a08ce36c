"""Questions and notes as lines of a terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.colour import Colours
from broker.prompts.keys import Keys
from broker.prompts.messages import Question, parse
from broker.prompts.notes import Told
from broker.prompts.sheet import note_line, prompt, question_lines
from tests.broker.prompts.agent_rig import device, note, question

PLAIN, COLOURED = Colours(enabled=False), Colours(enabled=True)
SGR = re.compile(r"\x1b\[\d+m")
OURS = re.compile(
    r"|Shall this call be made\?"
    r"|  (source|service|argument|requested target|value|cut short) *\| [!-~].*"
    r"| {20}\| .*"
    r"| *\d+  [A-Za-z0-9@_.:-]+(  default)?"
)


def lines(colours: Colours = PLAIN, columns: int = 80, rows: int = 24, **changed: Any) -> list[str]:
    return question_lines(question(**changed), columns, rows, colours)


def test_an_ordinary_question() -> None:
    assert lines() == [
        "",
        "Shall this call be made?",
        "",
        "  source            | work",
        "  service           | qubes.[Filecopy]",
        "",
        "     1  personal",
        "     2  vault  default",
        "",
    ]


def test_a_call_of_the_admin_api() -> None:
    found = lines(
        service="admin.vm.property.Set",
        argument="+netvm of vault = sys-net",
        targets=["dom0"],
        default_target="",
    )
    assert found[3:] == [
        "  source            | work",
        "  service           | admin.[vm.property.Set]",
        "  argument          | +netvm",
        "  requested target  | vault",
        "  value             | sys-net",
        "",
        "     1  dom0",
        "",
    ]


def test_a_device() -> None:
    found = parse(device(device_name="Disk\n"))
    assert isinstance(found, Question)
    assert question_lines(found, 80, 24, PLAIN) == [
        "",
        "Shall this device be attached?",
        "",
        "  source            | sys-usb",
        r"  device            | Disk\x0a",
        "  port              | sda",
        "",
        "     1  work  default",
        "",
    ]


def test_a_call_of_a_service_that_is_named_so_is_a_call() -> None:
    found = lines(service="device-agent.GUI")
    assert found[1:5] == [
        "Shall this call be made?",
        "",
        "  source            | work",
        "  service           | device-agent.[GUI]",
    ]


def test_an_empty_value_is_told() -> None:
    assert "  value             | (empty)" in lines(argument="+netvm = ")


def test_where_the_choices_do_not_fit_the_facts_are_next_to_the_prompt() -> None:
    found = lines(rows=12, targets=[f"q{number}" for number in range(20)], default_target="")
    assert found.index("    20  q19") < found.index("Shall this call be made?")
    assert found[-3:] == ["  source            | work", "  service           | qubes.[Filecopy]", ""]


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (80, 14), (44, 24), (200, 60)])
def test_no_text_scrolls_the_source_away(columns: int, rows: int) -> None:
    long = "x" * 1_000
    found = lines(
        columns=columns,
        rows=rows,
        argument=f"+{long} of {long} = {long}",
        service="s" * 128,
        targets=[f"q{number}" for number in range(100)],
        default_target="",
    )
    below = found[found.index("Shall this call be made?") :]
    assert "  source            | work" in below
    assert len(below) + 1 <= rows
    assert sum("more characters" in line for line in below) == 3


def test_colours_add_nothing_but_colour() -> None:
    hostile: dict[str, Any] = {"argument": "+\x1b[31m" + "a" * 500 + " of \x1b[1m = \x1b[2J"}
    coloured = lines(COLOURED, **hostile)
    unbracketed = [line.replace("[Filecopy]", "Filecopy") for line in lines(**hostile)]
    assert [SGR.sub("", line) for line in coloured] == unbracketed
    assert "  service           | qubes.\x1b[1mFilecopy\x1b[0m" in coloured


@pytest.mark.parametrize("colours", [PLAIN, COLOURED], ids=["plain", "coloured"])
@given(
    st.text(st.characters(blacklist_characters=" ")),
    st.text(st.characters(blacklist_characters=" "), min_size=1),
    st.text() | st.text(" \n1|valuesource", min_size=300, max_size=500),
    st.text("abc.", min_size=1, max_size=128),
    st.integers(0, 200),
)
def test_no_text_passes_for_a_line_of_ours(
    colours: Colours, argument: str, target: str, value: str, service: str, columns: int
) -> None:
    found = lines(colours, columns=columns, argument=f"+{argument} of {target} = {value}", service=service)
    for line in found:
        bare = SGR.sub("", line)
        assert OURS.fullmatch(bare), line
        assert bare.isascii()
        assert not bare or bare.isprintable()
        assert len(bare) < max(columns, 44)
    heads = [bare[2:].split("|")[0].strip() for line in found if "|" in (bare := SGR.sub("", line))]
    told = [head for head in heads if head not in ("", "cut short")]
    assert told == ["source", "service", *(["argument"] if argument else []), "requested target", "value"]


@pytest.mark.parametrize(
    ("told", "want"),
    [
        (Told(note(), 0), "denied: qubes.Filecopy from work to @default"),
        (Told(note(resolution="allow", argument="+x"), 0), "allowed: qubes.Filecopy+x from work to @default"),
        (
            Told(note(resolution="fail"), 7),
            "failed: qubes.Filecopy from work to @default (and 7 more from work)",
        ),
        (Told(note(target="a\n\x1b[2J\u202e"), 0), r"denied: qubes.Filecopy from work to a\x0a\x1b[2J\u202e"),
        (Told(note(target="x" * 100), 0), f"denied: qubes.Filecopy from work to {'x' * 60} (cut short)"),
    ],
    ids=["deny", "allow", "fail", "hostile", "long"],
)
def test_a_note_is_a_line(told: Told, want: str) -> None:
    assert note_line(told, PLAIN) == want
    assert SGR.sub("", note_line(told, COLOURED)) == want


@pytest.mark.parametrize(
    ("keys", "want"),
    [
        (Keys(3, 2, 0.0), "[1:05] One moment: what is typed now does not count."),
        (Keys(3, 2, 0.0, "1", awake=True), "[1:05] 1 to 3 allow, Enter for 2, d denies: 1"),
        (Keys(1, None, 0.0, awake=True), "[1:05] 1 allows, d denies: "),
        (Keys(3, 2, 0.0, "ye", True, awake=True), "[1:05] Type yes to allow that; all else denies: ye"),
    ],
    ids=["early", "default", "one", "confirming"],
)
def test_the_prompt(keys: Keys, want: str) -> None:
    assert prompt(keys, 65.0) == want
