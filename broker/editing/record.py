"""A policy and its history as one value, to be carried elsewhere: the whole, or one file and its part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from broker.editing.entry import Entry, FileChange
from broker.editing.history import History, tree_content
from broker.editing.store import token_of


@dataclass(frozen=True, slots=True)
class Record:
    """What a backup has.

    Attributes:
        files: the policy as it was, by file.
        entries: the history, the oldest first.
        contents: by token, all that the entries speak of and ``files`` has not.
        frame: the one file that all of it is about; empty for the whole policy.
    """

    files: Mapping[str, bytes]
    entries: Sequence[Entry]
    contents: Mapping[str, bytes]
    frame: str = ""

    def all_contents(self) -> dict[str, bytes]:
        """All contents by token."""
        return {**self.contents, **{token_of(content): content for content in self.files.values()}}


def record_of(history: History, files: Mapping[str, bytes]) -> Record:
    """The whole of a policy with these files and this history; an entry whose contents are lost is left out.

    Raises:
        OSError: as the disk does.
    """
    entries: list[Entry] = []
    contents: dict[str, bytes] = {}
    for entry in history.entries():
        found = history.contents(entry)
        if found is not None:
            entries.append(entry)
            contents |= found
    for content in files.values():
        contents.pop(token_of(content), None)
    return Record(files, entries, contents)


def part_of(record: Record, frame: str) -> Record:
    """What of it is about one file: the changes of that file, each without what else was changed then."""
    known = record.all_contents()
    entries: list[Entry] = []
    needed: dict[str, bytes] = {}
    for entry in record.entries:
        if entry.frame in ("", frame):
            for one in entry.files:
                if one.file == frame:
                    tree = tree_content({} if one.after is None else {frame: one.after})
                    entries.append(replace(entry, files=(one,), tree=token_of(tree), frame=frame))
                    needed |= {token_of(tree): tree, **_after(one, known)}
    files = {frame: record.files[frame]} if frame in record.files else {}
    for content in files.values():
        needed.pop(token_of(content), None)
    return Record(files, entries, needed, frame)


def unknown(entries: Iterable[Entry], known: Iterable[Entry]) -> list[Entry]:
    """Those that tell of other changes than the ones that are known."""
    there = set(map(_identity, known))
    return [entry for entry in entries if _identity(entry) not in there]


def _identity(entry: Entry) -> tuple[object, ...]:
    return entry.time, entry.author, entry.files, entry.tree


def _after(one: FileChange, known: Mapping[str, bytes]) -> dict[str, bytes]:
    return {} if one.after is None else {one.after: known[one.after]}
