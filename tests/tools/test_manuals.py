"""The manual pages and the configuration reference say what the programs and the keys are."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qubesd.config import Config, load, parse, rooted
from tools.documentation import configuration
from tools.documentation.__main__ import documents, pages
from tools.documentation.commands import ROOT, modules, page_of, parser_of
from tools.documentation.page import Block, Paragraph, Term, Verbatim, blocks, line, literal
from tools.documentation.roff import roff

MADE = documents()
PAGES = {page.file: page for page in pages()}
PROGRAMS = modules()
FOREIGN = frozenset({"dot(1)", "visudo(8)"})
"""Pages of other projects that ours may send a reader to."""

LIMIT = 60.0
"""Seconds that a command may take."""


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in MADE])
def test_the_document_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == MADE[path], "run tools/manuals"


def test_there_is_no_page_of_what_is_gone() -> None:
    assert {path.name for path in (ROOT / "docs/man").iterdir()} == set(PAGES)


def test_every_program_has_a_page_of_its_name() -> None:
    assert {page.name for page in PAGES.values()} == {*PROGRAMS, "qubesd.toml"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_all_its_sections_and_leads_to_pages_that_exist(name: str) -> None:
    sections = {section.title: section.blocks for section in PAGES[name].sections}
    wanted = {"DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO"}
    if PAGES[name].number != 5:
        wanted |= {"SYNOPSIS", "EXIT STATUS"}
    assert wanted - {title for title, found in sections.items() if found} == set()
    (others,) = sections["SEE ALSO"]
    assert isinstance(others, Paragraph)
    known = {f"{page.name}({page.number})" for page in PAGES.values()}
    assert {word.text for word in others.text} - known - FOREIGN - {", "} == set()


@pytest.mark.parametrize("name", PAGES)
def test_a_typesetter_has_nothing_to_complain_of(name: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", ROOT / "docs/man" / name],
        capture_output=True,
        check=False,
        timeout=LIMIT,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """With those of the commands in it."""
    found = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            assert {choice.dest for choice in action._choices_actions} == set(action.choices)
            for command in action.choices.values():
                assert command.description, f"{command.prog} does not say what it does"
                found += actions(command)
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_and_argument_says_what_it_is(program: str) -> None:
    parser = parser_of(PROGRAMS[program])
    assert parser.prog == program
    found = [action for action in actions(parser) if not isinstance(action, argparse._SubParsersAction)]
    assert [action.dest for action in found if not action.help] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_given_to_a_person(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", PROGRAMS[program], "--help"],
        capture_output=True,
        cwd=ROOT,
        check=False,
        timeout=LIMIT,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {program} ")
    assert "examples:" in done.stdout


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param(
            "Some\ntext.\n\nMore.", [Paragraph(line("Some text.")), Paragraph(line("More."))], id="paragraphs"
        ),
        pytest.param(
            "a  first\nb, c\n    second\n    half\n",
            [Term(literal("a"), line("first")), Term(literal("b, c"), line("second half"))],
            id="terms",
        ),
        pytest.param(
            "It is:\n\n  a  one", [Paragraph(line("It is:")), Term(literal("a"), line("one"))], id="below"
        ),
        pytest.param("  just code\n  and more", [Verbatim(("just code", "and more"))], id="verbatim"),
    ],
)
def test_plain_text_has_its_blocks(text: str, want: list[Block]) -> None:
    assert list(blocks(text)) == want


def test_a_page_is_made_of_its_parser() -> None:
    parser = argparse.ArgumentParser(
        prog="try",
        description="Try a thing.\n\n.it begins with a dot, and 'this' has \\ in it: see man(1).",
        epilog="exit status:\n  0  well\n\nexamples:\n  try -x  # é\n",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("-x", "--ex", action="store_true", help="an x")
    either.add_argument("-y", choices=["a", "b"], default="a", help="a y (default: %(default)s)")
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    parser.add_argument("--needed", required=True, metavar="N", help="an n")
    commands = parser.add_subparsers()
    go = commands.add_parser("go", help="go", description="Go there.", aliases=["walk"])
    go.add_argument("places", nargs="*", metavar="PLACE", help="where")
    assert roff(page_of(parser), "ours 1").splitlines()[1:] == [
        '.TH TRY 1 "" "ours 1" "Qubes OS Admin API"',
        *(".nr HY 0", ".nh", ".ad l"),
        *(".SH NAME", r"try \- try a thing"),
        *(".SH SYNOPSIS", ".PP"),
        r"\fBtry\fR [OPTIONS] \fBgo\fR [\fIPLACE\fR ...]",
        ".PP",
        r"\fBtry\fR [\fB\-x\fR | \fB\-y\fR {\fBa\fR | \fBb\fR}] \fB\-\-needed\fR \fIN\fR",
        *(".SH DESCRIPTION", ".PP"),
        r"\&.it begins with a dot, and \(aqthis\(aq has \e in it: see \fBman(1)\fR.",
        ".SH OPTIONS",
        *(".TP", r"\fB\-x\fR, \fB\-\-ex\fR", "an x"),
        *(".TP", r"\fB\-y\fR {\fBa\fR | \fBb\fR}", "a y (default: a)"),
        *(".TP", r"\fB\-\-needed\fR \fIN\fR", "an n"),
        *(".SH COMMANDS", r".SS \fBgo\fR [\fIPLACE\fR ...]", ".PP", "Go there."),
        *(".TP", r"\fIPLACE\fR", "where"),
        *(".SH EXIT STATUS", ".TP", r"\fB0\fR", "well"),
        *(".SH EXAMPLES", ".PP", ".EX", r"try \-x  # \[u00E9]", ".EE"),
    ]


def test_an_epilog_without_a_heading_is_told_of() -> None:
    with pytest.raises(ValueError, match="try: the epilog has text before its first heading"):
        page_of(argparse.ArgumentParser(prog="try", description="Try.", epilog="Some more."))


def test_the_reference_has_every_key() -> None:
    documented = [key.name for key in configuration.described_keys()]
    assert [*documented, "users"] == [field.name for field in dataclasses.fields(Config)]


def test_the_defaults_of_the_reference_are_those_of_the_configuration() -> None:
    text = "".join(f"{key.name} = {key.default}\n" for key in configuration.described_keys())
    assert parse(text, Path("x"), rooted(Path("/elsewhere"))) == Config()
    text = "".join(f"{key.name} = {key.rooted}\n" for key in configuration.described_keys()).replace(
        '"DIR/', '"/DIR/'
    )
    assert parse(text, Path("x"), Config()) == rooted(Path("/DIR"))


def test_the_example_of_the_reference_is_read(tmp_path: Path) -> None:
    file = tmp_path / "qubesd.toml"
    # A user of this name is not on every machine.
    file.write_text(configuration.EXAMPLE.replace("alice =", "1000 ="))
    config = load(None, file)
    assert (config.visibility, config.audit_size) == ("strict", 64)
    assert config.users == ((1000, "mgmt-alice"), (1001, "mgmt-bob"))
