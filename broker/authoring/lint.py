"""``qubes-policy-lint``: what is wrong with policy files, line by line (``spec/policy-daemon.md`` 7)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import NoReturn

from broker.authoring.report import harmless
from broker.catalogue import catalogue
from policy_engine import MAX_FILE, DirectorySource, Finding, lint
from policy_engine.errors import quoted_path

STANDARD_INPUT = "-"

_DESCRIPTION = """\
Show what is wrong with policy files, line by line.

Each file is looked at by itself: what it includes is taken to be there and
empty. A path that is included must lie directly in the policy directory or
directly in its "include" directory. A file in the delegation dialect (its
first line says so) is read in that language, and there what is no error but
hardly meant is told as a warning: a !define that is never used, a name or tag
that nothing can have, {source} where no caller of the rule can stand, a rule
that an earlier one of the same file never lets have its turn.

Each finding is one line on standard output, "FILE:LINE: error: MESSAGE" or
"FILE:LINE: warning: MESSAGE"; LINE is 0 where the whole file is meant. To check
all files of a policy together, use "qubes-policy check".
"""
_EPILOG = """\
exit status:
  0  nothing, or warnings alone
  1  errors
  2  called wrongly

files:
  /etc/qubes/policy.d
      where policy files lie; none of them is read unless it is named

examples:
  qubes-policy-lint /etc/qubes/policy.d/*.policy
  qubes-policy-lint --show-line 30-user.policy
  qubes-policy-lint --include-service /etc/qubes/policy.d/include/admin-local-ro
  qubes-policy-lint - < 30-user.policy

see also:
  qubes-policy(1), qrexec-policy-graph(1)
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``qubes-policy-lint``."""
    made = argparse.ArgumentParser(
        prog="qubes-policy-lint",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("-s", "--show-line", action="store_true", help="show the line behind each message")
    made.add_argument(
        "-i",
        "--include-service",
        action="store_true",
        help="the files are in the old syntax, as !include-service reads them",
    )
    made.add_argument("--json", action="store_true", help="for programs: one list of all findings")
    made.add_argument("files", nargs="+", metavar="FILE", help="a policy file; - is standard input")
    return made


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Exit status 0: no errors; 1: errors."""
    options = parser().parse_args(arguments)
    found = [
        (name, finding) for name in options.files for finding in _findings(name, options.include_service)
    ]
    try:
        if options.json:
            print(json.dumps([{"file": name, **asdict(finding)} for name, finding in found], indent=1))
        else:
            for name, finding in found:
                print(_line(name, finding, options.show_line))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough, as in `qubes-policy-lint FILE | head`.
        sys.stderr.close()
    sys.exit(any(finding.severity == "error" for _, finding in found))


def _findings(name: str, legacy: bool) -> list[Finding]:
    try:
        if name == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_FILE + 1)
        else:
            content = DirectorySource().read(name, MAX_FILE + 1)
    except FileNotFoundError:
        return [Finding(0, "error", "File does not exist.", "io")]
    except (OSError, ValueError) as error:  # a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [Finding(0, "error", f"cannot be read: {reason}", "io")]
    return lint(content, partial(catalogue, enforced=True), legacy=legacy)


def _line(name: str, finding: Finding, show: bool) -> str:
    shown = f": {harmless(finding.text)}" if show and finding.line else ""
    return f"{quoted_path(name)}:{finding.line}: {finding.severity}: {finding.message}{shown}"


if __name__ == "__main__":
    main()
