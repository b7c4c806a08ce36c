"""The configuration reference, made from the fields of ``Config``: ``qubesd.toml(5)``, and the same for the
web."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qubesd.config import DEFAULT_FILE, FORMS, WORDS, Config, rooted
from tools.documentation.page import (
    Face,
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

BELOW = Path("/DIR")
"""Stands for the directory that ``--root`` is given."""

INTRODUCTION = f"""\
``qubesd`` and ``qubes-policy`` read one file in TOML when they start: ``{DEFAULT_FILE}``, or the one that
``--config`` names. What it does not say is as by default, and without a file all is. A key that does not
exist, a value of another type and one that is not as it must be are errors, told with the file and line;
the program does not start then.

With ``--root DIR`` the file is ``DIR{DEFAULT_FILE}``, all places are by default below ``DIR``, and the
hypervisor is the embedded one; ``qubesd`` makes what is missing there, and an empty system.
"""
USERS = """\
A line for each user, by name or by uid, with the name of the management qube that the user's calls are
judged as. What this qube may do, the policy says. A user who is not here cannot call.
"""
EXAMPLE = """\
visibility = "strict"
audit_size = 64

[users]
alice = "mgmt-alice"
1001 = "mgmt-bob"
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the file; the texts are plain, with literals in double backquotes."""

    name: str
    must: str
    """What its value must be."""
    default: str
    """As it would stand in the file."""
    rooted: str
    """The default with ``--root /DIR``."""
    meaning: str


def described_keys() -> Iterator[Key]:
    """All keys but ``users``, in the order of the fields. Raises ``ValueError`` where one says nothing."""
    meanings, below = _meanings(), rooted(BELOW)
    for field in dataclasses.fields(Config):
        if field.name not in meanings:
            raise ValueError(f"Config.{field.name} does not say what it is")
        if field.name != "users":
            default = getattr(Config(), field.name)
            yield Key(
                field.name,
                _must(field.name, default),
                _toml(default),
                _toml(getattr(below, field.name)).replace(f"{BELOW}/", "DIR/"),
                meanings[field.name],
            )


def _meanings() -> Mapping[str, str]:
    """What is written below each field."""
    (described,) = ast.parse(textwrap.dedent(inspect.getsource(Config))).body
    assert isinstance(described, ast.ClassDef)
    found = {}
    for field, below in zip(described.body, described.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                found[name] = " ".join(text.split())
    return found


def _must(name: str, default: object) -> str:
    form = FORMS.get(name)
    if isinstance(default, int) and not isinstance(default, bool) and form is not None:
        return f"{WORDS[int]} {form.words}"
    if form is not None:
        return form.words.replace("'", "``")
    return WORDS[type(default)]


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case _:
            return f'"{value}"'


def page() -> Page:
    """``qubesd.toml(5)``."""
    return Page(
        "qubesd.toml",
        5,
        "where qubesd has everything, and the switches of policy",
        (
            Section("DESCRIPTION", tuple(blocks(INTRODUCTION))),
            Section("KEYS", tuple(_term(key) for key in described_keys())),
            Section("THE TABLE [users]", tuple(blocks(USERS))),
            Section("FILES", (Term(literal(str(DEFAULT_FILE)), line("the configuration")),)),
            Section("EXAMPLES", (Verbatim(tuple(EXAMPLE.splitlines())),)),
            Section("SEE ALSO", (Paragraph(line("qubesd(8), qubes-policy(1)")),)),
        ),
    )


def _term(key: Key) -> Term:
    default = f"The default is ``{key.default}``"
    if key.rooted != key.default:
        default += f", with --root DIR ``{key.rooted}``"
    head = (Word(key.name, Face.LITERAL), Word(" = "), *line(key.must))
    return Term(head, line(f"{key.meaning} {default}."))


def document() -> str:
    """The text of docs/configuration.md."""
    return "".join(f"{text}\n" for text in _document())


def _document() -> Iterator[str]:
    yield "# Configuration"
    yield ""
    yield "Made from `qubesd/config.py` by `tools/manuals`; a test holds it to the keys there. The same is in"
    yield "`man qubesd.toml`."
    yield ""
    yield _markdown(INTRODUCTION)
    yield "| key | its value | default | with `--root DIR` | meaning |"
    yield "|---|---|---|---|---|"
    for key in described_keys():
        same = key.rooted == key.default
        cells = (
            f"`{key.name}`",
            _markdown(key.must),
            f"`{key.default}`",
            "the same" if same else f"`{key.rooted}`",
            _markdown(key.meaning),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "## The table `[users]`"
    yield ""
    yield _markdown(USERS)
    yield "## An example"
    yield ""
    yield f"```toml\n{EXAMPLE}```"


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", r"\|")
