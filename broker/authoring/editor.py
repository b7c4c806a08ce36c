"""``qubes-policy-editor``: the stock name of ``qubes-policy edit``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from broker.authoring.command_line import add_file, add_preview
from broker.authoring.editing import edit_named
from broker.authoring.options import add_places
from broker.authoring.outcome import carried_out

_DESCRIPTION = """\
Edit a file of the policy.

It is qubes-policy edit under its stock name: in dom0, or in a qube whose policy
calls are allowed, a copy of the file is edited, checked, shown with what it
changes, and put into force if that is wanted.
"""
_EPILOG = """\
exit status:
  0    the file is as the editor left it
  1    it is as it was
  2    what was asked for is not to be had; standard error says why
  130  interrupted at a question; nothing was changed

environment:
  VISUAL, EDITOR
      the editor; without either it is vi

files:
  /etc/qubes/policy.d
      the policy

examples:
  qubes-policy-editor
  qubes-policy-editor include/team-a

see also:
  qubes-policy(1), qubes-policy-lint(1)
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``qubes-policy-editor``."""
    parser = argparse.ArgumentParser(
        prog="qubes-policy-editor",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_places(parser)
    add_file(parser)
    add_preview(parser, "do not ask, unless there is a warning")
    return parser


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Exit status as ``qubes-policy edit``."""
    carried_out(edit_named, parser().parse_args(arguments), "qubes-policy-editor")


if __name__ == "__main__":
    main()
