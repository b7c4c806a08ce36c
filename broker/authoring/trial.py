"""A change that is tried and not made: what is wrong with it, or what it would do."""

from __future__ import annotations

from collections.abc import Mapping

from broker.authoring.desk import Desk, InPlace
from broker.authoring.preview import Preview, Previews
from broker.authoring.questions import show
from broker.editing.edits import NEW_TOKEN, check_token
from broker.editing.making import FileContents
from qubesd.errors import NoSuchPolicyFile


def tried(
    desk: Desk, previews: Previews, before: Mapping[str, bytes], changes: FileContents
) -> Preview | None:
    """Show what changes would do. ``None`` where they would be refused: then it has shown what is wrong.

    Args:
        before: the files that are there now, of those that are changed.
    """
    if isinstance(desk, InPlace):
        faults = desk.edits.faults(changes)
        if faults is not None:
            for line in previews.faults(faults, changes):
                print(line)
            return None
        preview = previews.of(before, changes)
    else:
        preview = previews.of_text(before, changes)
    show(preview)
    return preview


def dry_run(desk: Desk, previews: Previews, file: str, content: bytes | None, wanted: str) -> int:
    """Show what would be if the file had this content, or with ``None`` were not there.

    Args:
        wanted: the token that it has to have, as of ``Desk.replace``.

    Returns:
        0 where it would be done, 1 where it would be refused.

    Raises:
        NoSuchPolicyFile: there is none to take away.
        PolicyProtocolError, PolicyTokenError: as ``check_token``.
    """
    token, now = desk.get(file)
    before = {} if token == NEW_TOKEN else {file: now}
    check_token(wanted, before.get(file))
    if content is None and not before:
        raise NoSuchPolicyFile("there is no such file")
    return 1 if tried(desk, previews, before, {file: content}) is None else 0
