"""The history of the policy, and the way back."""

from __future__ import annotations

import json
import time
from typing import Any

from broker.authoring.desk import InPlace, author
from broker.authoring.preview import Previews, text_differences
from broker.authoring.questions import QUIT, choose, consent
from broker.authoring.report import harmless, table
from broker.authoring.trial import tried
from broker.colour import Colours
from broker.described import ToolError
from broker.editing.edits import PolicyEdits
from broker.editing.entry import Entry, FileChange
from broker.editing.making import FileContents
from broker.editing.names import shown
from qubesd.errors import PolicyAdminError


def history(edits: PolicyEdits, as_json: bool, colours: Colours) -> int:
    """Print all that is remembered, the oldest first."""
    edits.notice()
    entries = edits.history()
    if as_json:
        print(json.dumps([document(entry) for entry in entries], indent=1))
        return 0
    rows = ((str(one.number), moment(one.time), _who(one), _files(one), _what(one)) for one in entries)
    for line in table(("entry", "when", "who", "file", "what"), rows, colours, indent=""):
        print(line)
    return 0


def entry_differences(edits: PolicyEdits, number: int, colours: Colours) -> int:
    """Print what one entry changed."""
    edits.notice()
    entries = edits.history()
    place = next((place for place, entry in enumerate(entries) if entry.number == number), None)
    if place is None:
        raise PolicyAdminError(f"the history has no entry {number}; qubes-policy history shows those it has")
    entry = entries[place]
    after = edits.state(number)
    before = edits.state(entries[place - 1].number) if place else {}
    print(f"{colours.title(f'entry {number}')}  {moment(entry.time)}  {_who(entry)}  {_what(entry)}")
    for change in entry.files:
        for line in text_differences(change.file, before.get(change.file), after.get(change.file), colours):
            print(line)
    return 0


def rollback(edits: PolicyEdits, number: int, yes: bool, previews: Previews) -> int:
    """Show the way back to an entry and, if that is wanted, go it.

    Returns:
        0 where the policy is as it was after the entry, 1 where it is left as it is.
    """
    edits.notice()
    changes = edits.way_back(number)
    if not changes:
        print(f"the policy is as it was after entry {number}")
        return 0
    if not is_wanted(edits, changes, yes, previews):
        return 1
    if edits.way_back(number) != changes:
        raise ToolError("somebody else has changed the policy meanwhile, so nothing was changed; look again")
    edits.rollback(author(), number)
    return 0


def is_wanted(edits: PolicyEdits, changes: FileContents, yes: bool, previews: Previews) -> bool:
    """Show what changes would do, and ask; with ``yes`` nobody is asked.

    Raises:
        PolicyAdminError: the policy would not be whole.
    """
    now = edits.state(edits.history()[-1].number)
    preview = tried(InPlace(edits), previews, now, changes)
    if preview is None:
        raise PolicyAdminError("the policy would not be whole, so nothing was changed")
    if not yes and choose({consent(preview): "put it into force", QUIT: "quit"}) == QUIT:
        print("nothing was changed")
        return False
    return True


def document(entry: Entry) -> dict[str, Any]:
    """An entry as ``--json`` gives it; times in seconds of the epoch."""
    return {
        "entry": entry.number,
        "time": entry.time,
        "who": {"qube": entry.author.qube or None, "user": entry.author.user or None},
        "files": [
            {"file": one.file, "before": one.before, "after": one.after, "change": _kind(one)}
            for one in entry.files
        ],
        "why": entry.why,
    }


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _who(entry: Entry) -> str:
    return harmless(str(entry.author)) or "not known"


def _files(entry: Entry) -> str:
    return ", ".join(shown(one.file) for one in entry.files[:3]) + (
        f" and {len(entry.files) - 3} more" if len(entry.files) > 3 else ""
    )


def _what(entry: Entry) -> str:
    kinds = ", ".join(dict.fromkeys(map(_kind, entry.files)))
    return harmless(f"{kinds}: {entry.why}" if entry.why else kinds)


def _kind(change: FileChange) -> str:
    if change.before is None:
        return "made"
    return "removed" if change.after is None else "changed"
