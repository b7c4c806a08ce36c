"""Backups of the policy and its history: ``qubes-policy backup`` and ``restore``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.authoring.desk import author
from broker.authoring.keeping import is_wanted
from broker.authoring.preview import Previews
from broker.described import ToolError
from broker.editing.backup import changes, load, narrowed, save
from broker.editing.backup import restore as take_over
from broker.editing.edits import PolicyEdits
from broker.editing.names import INCLUDE, shown


def backup(edits: PolicyEdits, archive: Path, frame: str) -> int:
    """Write the policy, or one framed file, and its history to a file."""
    with _readable(archive):
        record = save(edits, archive, frame.removeprefix(INCLUDE))
    what = shown(record.frame) if record.frame else f"{len(record.files)} files"
    print(f"{archive}: {what} and {len(record.entries)} entries of the history")
    return 0


def restore(edits: PolicyEdits, archive: Path, frame: str, yes: bool, previews: Previews) -> int:
    """Show what a backup would change and, if that is wanted, take it over.

    Returns:
        0 where the policy is as in the backup, 1 where it is left as it is.
    """
    with _readable(archive):
        found = load(archive)
    if frame:
        found = narrowed(found, frame.removeprefix(INCLUDE))
    edits.notice()
    made = changes(edits, found)
    if made and not is_wanted(edits, made, yes, previews):
        return 1
    if changes(edits, found) != made:
        raise ToolError("somebody else has changed the policy meanwhile, so nothing was changed; look again")
    take_over(edits, author(), found)
    if not made:
        print("the files are those of the backup")
    return 0


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ToolError(f"{archive}: {error.strerror or error}") from error
