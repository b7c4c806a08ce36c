"""What is wrong with one policy file, line by line, as far as the file alone tells (``spec/policy-daemon.md``
7); of a file in the delegation dialect also what is doubtful in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from policy_engine.catalogue import Catalogue
from policy_engine.dialect import Dialect
from policy_engine.doubts import Doubts
from policy_engine.errors import Kind, PolicyError, quoted
from policy_engine.model import ANY
from policy_engine.parse import Fields, Include, IncludeService
from policy_engine.read import MAX_FILE, DirectiveLine, Origin, Step, lines_of, read
from policy_engine.read_dialect import DialectStep, FrameLine, is_dialect, read_dialect


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to be told of a line.

    Attributes:
        line: counted from 1; 0 where the file as a whole is meant.
        severity: with an ``error`` the policy does not load; a ``warning`` is of what was hardly meant.
        message: what was expected and what was found, its column in front where that is known.
        kind: the error's; ``None`` for a warning.
        column: counted from 1; ``None`` where it is not known.
        text: the line, without the white space around it.
    """

    line: int
    severity: Literal["error", "warning"]
    message: str
    kind: Kind | None = None
    column: int | None = None
    text: str = ""


def lint(content: bytes, catalogue: Callable[[], Catalogue], *, legacy: bool = False) -> list[Finding]:
    """All findings of a file, by line. Files that it includes are taken to be there and empty.

    Args:
        content: of the file; what is beyond ``MAX_FILE`` is not needed.
        catalogue: as of ``Loader``; asked only if the file is in the delegation dialect.
        legacy: whether the file is in the old syntax, for any service.
    """
    if len(content) > MAX_FILE:
        return [Finding(0, "error", f"a policy file has at most {MAX_FILE} bytes", "io")]
    errors: list[PolicyError] = []
    warnings: list[tuple[int, str]] = []
    origin = Origin("", legacy=(ANY, ANY) if legacy else None)
    if not legacy and is_dialect(content):
        dialect = Dialect(catalogue())
        steps = list(read_dialect(content, origin, dialect, errors.append))
        warnings = _doubts(steps, dialect)
        for step in steps:
            errors += _paths(step, origin)
    else:
        for part in read(content, origin, Fields(), errors.append):
            errors += _paths(part, origin)
    lines = dict(lines_of(content, origin, lambda error: None))
    findings = [_error(error, lines) for error in errors]
    findings += [
        Finding(line, "warning", message, text=lines[line].strip())
        for line, message in dict.fromkeys(warnings)
    ]
    return sorted(findings, key=lambda finding: finding.line)


def _doubts(steps: list[DialectStep], dialect: Dialect) -> list[tuple[int, str]]:
    doubts = Doubts(dialect.catalogue)
    for name, defined in dialect.defined.items():
        doubts.define(name, defined.expression, defined.line, defined.used)
    for step in steps:
        doubts.step(step)
    return doubts.found


def _error(error: PolicyError, lines: dict[int, str]) -> Finding:
    line = error.line or 0
    place = "" if error.column is None else f"column {error.column}: "
    text = lines.get(line, "").strip()
    return Finding(line, "error", place + error.message, error.kind, error.column, text)


def _paths(step: Step | DialectStep, origin: Origin) -> Iterator[PolicyError]:
    """What is wrong with the path that a line includes. The loader takes any that leads to a file; whoever
    edits policy over the Admin API reaches the policy directory and its ``include`` only."""
    match step:
        case (
            DirectiveLine(Include(path) | IncludeService(_, _, path), line, column)
            | FrameLine(path=path, line=line, column=column)
        ):
            if not _DIRECTLY.fullmatch(path):
                message = f"expected NAME or include/NAME, below the policy directory, found {quoted(path)}"
                yield origin.error("include-path", message, line, column)


_DIRECTLY = re.compile(r"(include/)?(?!\.{1,2}$)[^/]+")
