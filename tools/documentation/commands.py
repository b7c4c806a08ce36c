"""The programs that are installed, and the page of each from its parser."""

from __future__ import annotations

import argparse
import re
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

from tools.documentation.page import (
    Block,
    Face,
    Heading,
    Line,
    Page,
    Paragraph,
    Section,
    Term,
    Verbatim,
    Word,
    blocks,
    line,
    literal,
)

ROOT = Path(__file__).resolve().parents[2]

BESIDE_THE_WHEEL = {"qubes-policy-switch": "tools.installation.switch"}
"""Programs that are installed and are no console script, with their modules."""

NOT_TYPED = frozenset(
    {
        "qrexec-policy-agent",
        "qrexec-policy-daemon",
        "qrexec-policy-exec",
        "qubes-console",
        "qubes-policy-admin",
        "qubes-policy-register-argument",
        "qubes-policy-switch",
        "qubes-volume-import",
        "qubesd",
    }
)
"""What the system runs, or what is for whoever runs the system: section 8. All else is section 1."""

_LAST = ("EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO")
"""The sections that a page ends with, in this order."""


def modules() -> Mapping[str, str]:
    """Each program with the module of its main."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    scripts = {name: where.partition(":")[0] for name, where in project["scripts"].items()}
    return dict(sorted({**scripts, **BESIDE_THE_WHEEL}.items()))


def parser_of(module: str) -> argparse.ArgumentParser:
    """What a program's module says of its command line. Raises ``AttributeError`` where it says nothing."""
    parser = import_module(module).parser()
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def page_of(parser: argparse.ArgumentParser) -> Page:
    """The manual page of a program."""
    name, description = parser.prog, parser.description or ""
    sections = [
        Section("SYNOPSIS", tuple(_synopsis(parser))),
        Section("DESCRIPTION", tuple(blocks(_rest(description)))),
        Section("ARGUMENTS", tuple(_arguments(parser))),
        Section("OPTIONS", tuple(_options(parser))),
        Section("COMMANDS", tuple(_commands(parser))),
    ]
    ends = sorted(_epilog(parser), key=lambda section: _rank(section.title))
    number = 8 if name in NOT_TYPED else 1
    return Page(name, number, _title(description), (*(one for one in sections if one.blocks), *ends))


def _rank(title: str) -> int:
    return _LAST.index(title) if title in _LAST else -1


def _title(description: str) -> str:
    """The first sentence, as it stands after a dash."""
    first = re.split(r"\.\s|\.$|\n\s*\n", " ".join(description.split("\n\n")[0].split()))[0]
    return first[:1].lower() + first[1:] if first[1:2].islower() else first


def _rest(description: str) -> str:
    """What there is to say besides the first sentence, which is all of it where nothing follows."""
    first, _, rest = description.partition("\n\n")
    return rest if rest.strip() and first.count(". ") == 0 else description


def _synopsis(parser: argparse.ArgumentParser) -> Iterator[Paragraph]:
    if parser.usage:
        name, _, rest = parser.usage.partition(" ")
        yield Paragraph((*literal(name % {"prog": parser.prog}), Word(f" {rest}")))
        return
    common = _usage(parser)
    for command in _subparsers(parser):
        own = command.prog.rpartition(" ")[2]
        options = (Word(" [OPTIONS]"),) if _switches(parser) else ()
        yield Paragraph(
            (*literal(parser.prog), *options, Word(" "), *literal(own), *_usage(command, named=False))
        )
    if not any(
        isinstance(action, argparse._SubParsersAction) and action.required for action in parser._actions
    ):
        yield Paragraph(common)


def _usage(parser: argparse.ArgumentParser, named: bool = True) -> Line:
    words: list[Word] = [*literal(parser.prog)] if named else []
    either = {
        id(action): group for group in parser._mutually_exclusive_groups for action in group._group_actions
    }
    shown: set[int] = set()
    for action in (*_switches(parser), *_positionals(parser)):
        group = either.get(id(action))
        together = [action] if group is None else group._group_actions
        if id(together[0]) in shown:
            continue
        shown.add(id(together[0]))
        optional = action.option_strings and not (group.required if group else action.required)
        words += [Word(" ["), *_joined(together), Word("]")] if optional else [Word(" "), *_joined(together)]
    return tuple(words)


def _joined(actions: Iterable[argparse.Action]) -> Iterator[Word]:
    for number, action in enumerate(actions):
        if number:
            yield Word(" | ")
        yield from _form(action, action.option_strings[:1])


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Term]:
    for action in _positionals(parser):
        yield Term(_value(action), line(_help(parser, action)))


def _options(parser: argparse.ArgumentParser) -> Iterator[Term]:
    for action in _switches(parser):
        forms = [tuple(_form(action, [option])) for option in action.option_strings]
        term = tuple(word for form in forms for word in (Word(", "), *form))[1:]
        yield Term(term, line(_help(parser, action)))


def _commands(parser: argparse.ArgumentParser) -> Iterator[Block]:
    for command in _subparsers(parser):
        yield Heading((*literal(command.prog.rpartition(" ")[2]), *_usage(command, named=False)))
        yield from blocks(command.description or "")
        yield from _arguments(command)
        yield from _options(command)
        for section in _epilog(command):
            yield Paragraph(line(f"{section.title.capitalize()}:"))
            yield from section.blocks


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            # One with a second name is there twice.
            yield from dict.fromkeys(action.choices.values())


def _switches(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options that are told of; what ``--help`` does is known."""
    return [
        action
        for action in parser._actions
        if action.option_strings
        and action.help != argparse.SUPPRESS
        and not isinstance(action, argparse._HelpAction)
    ]


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions
        if not action.option_strings
        and action.help != argparse.SUPPRESS
        and not isinstance(action, argparse._SubParsersAction)
    ]


def _form(action: argparse.Action, options: Iterable[str]) -> Iterator[Word]:
    """An option with what follows it, or an argument with brackets around it if it can be left out."""
    named = False
    for option in options:
        named = True
        yield from literal(option)
    if action.nargs == 0:
        return
    value = _value(action)
    if named:
        yield Word(" ")
    if action.nargs == "?":
        yield from (Word("["), *value, Word("]"))
    elif action.nargs == "*":
        yield from (Word("["), *value, Word(" ...]"))
    elif action.nargs == "+":
        yield from (*value, Word(" ..."))
    else:
        yield from value


def _value(action: argparse.Action) -> Line:
    if action.metavar is None and action.choices is not None:
        words = [word for choice in action.choices for word in (Word(" | "), *literal(str(choice)))]
        return (Word("{"), *words[1:], Word("}"))
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return (Word(metavar, Face.PLACE),)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": parser.prog}


def _epilog(parser: argparse.ArgumentParser) -> Iterator[Section]:
    """The sections below the options. Raises ``ValueError`` for text that is in none."""
    pieces = re.split(r"^(\S.*):\n", parser.epilog or "", flags=re.MULTILINE)
    if pieces[0].strip():
        raise ValueError(f"{parser.prog}: the epilog has text before its first heading: {pieces[0]!r}")
    for title, text in zip(pieces[1::2], pieces[2::2], strict=True):
        plain = textwrap.dedent(text).strip("\n")
        if title == "examples":
            yield Section("EXAMPLES", (Verbatim(tuple(plain.splitlines())),))
        else:
            yield Section(title.upper(), tuple(blocks(plain)))
