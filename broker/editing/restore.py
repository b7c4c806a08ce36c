"""``qubes-policy-restore``: take over the policy files of another directory."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from broker.editing.edits import PolicyEdits, elsewhere
from broker.editing.entry import Author
from broker.editing.names import INCLUDE
from broker.editing.store import PolicyStore
from qubesd.config import ConfigError, load
from qubesd.errors import QubesError
from qubesd.model.state import DOM0

_DESCRIPTION = """\
Take over the policy files of another directory.

The files of SOURCE_DIR and of its include folder are copied, those that are
included before those that include them, so that the policy is whole at each
moment. A file that is there already is left alone. All of them are taken over,
or none where the policy would not be whole with them.

The backups of qubes-policy have the history as well.
"""
_EPILOG = """\
exit status:
  0  all of them were taken over
  1  none was; standard error says why
  2  the command line is wrong

files:
  /etc/qubes/policy.d
      the policy
  /var/lib/qubes/policy-history
      its history, in which this is one entry

examples:
  qubes-policy-restore /mnt/old-dom0/etc/qubes/policy.d
  qubes-policy-restore --dest /tmp/policy.d /mnt/old-dom0/etc/qubes/policy.d

see also:
  qubes-policy(1)
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="qubes-policy-restore",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "source", type=Path, metavar="SOURCE_DIR", help="the directory whose files to take over"
    )
    made.add_argument(
        "--dest", type=Path, metavar="DIR", help="the policy directory (default: the configured one)"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Exits with 1 and a message where nothing could be taken over."""
    options = parser().parse_args(arguments)
    try:
        config = load()
        restore(options.source, PolicyEdits(elsewhere(options.dest or config.policy_dir, config)))
    except (ConfigError, QubesError) as error:
        sys.exit(f"qubes-policy-restore: {error}")
    except OSError as error:
        sys.exit(f"qubes-policy-restore: {error.filename or options.source}: {error.strerror}")
    sys.exit(0)


def restore(source: Path, edits: PolicyEdits) -> None:
    """Take over the files that are missing; says on standard output what becomes of each.

    Raises:
        QubesError: nothing was taken over.
        OSError: there is no such directory.
    """
    os.scandir(source).close()
    found = PolicyStore(source).contents()
    there = {f"{name}.policy" for name in edits.names(included=False)}
    there |= {INCLUDE + name for name in edits.names(included=True)}
    for file in sorted(there & found.keys()):
        print(f"{file}: left alone, it is there already")
    missing: dict[str, bytes | None] = {file: content for file, content in found.items() if file not in there}
    entry = edits.change(Author(DOM0, user()), missing, f"qubes-policy-restore {source}")
    for one in () if entry is None else entry.files:
        print(f"{one.file}: restored")


def user() -> str:
    """The name of the user of dom0 whose program this is."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


if __name__ == "__main__":
    main()
