"""A policy in a scratch directory, and those who edit it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from broker.editing.edits import Places, PolicyEdits
from broker.editing.entry import Author, Entry
from broker.editing.store import token_of

DIALECT = "!dialect delegation-1\n"
RULE = "s.A * a b allow\n"
FRAME = f"{DIALECT}s.A * @tag:team @tag:team !include include/team\n"
ME = Author("dom0", "me")


class Desk:
    """The policy directory ``etc``, the runtime one ``run`` and the history ``history`` below ``root``."""

    def __init__(self, root: Path, files: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.directory = root / "etc"
        self.history = root / "history"
        for folder in (root / "run", self.directory / "include"):
            folder.mkdir(parents=True)
        for file, text in (files or {}).items():
            self.write(file, text)
        self.edits = self.another()

    def another(self) -> PolicyEdits:
        """Somebody else who edits the same policy."""
        return PolicyEdits(
            Places(self.directory, self.root / "run", self.root / "legacy", self.history, group="")
        )

    def write(self, file: str, text: str | bytes) -> None:
        """As an editor does."""
        (self.directory / file).write_bytes(text if isinstance(text, bytes) else text.encode())

    def files(self) -> dict[str, bytes]:
        """Whatever there is, by path."""
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file()
        }

    def agrees(self) -> bool:
        """Whether the newest entry of the history tells of the files as they are, and of the way there."""
        entries = self.edits.history()
        tree: dict[str, str] = {}
        for entry in entries:
            for one in entry.files:
                assert tree.pop(one.file, None) == one.before
                if one.after is not None:
                    tree[one.file] = one.after
        assert self.edits.state(entries[-1].number) == self.files()
        return tree == {file: token_of(content) for file, content in self.files().items()}


def told(entry: Entry) -> tuple[str, str, list[str]]:
    """Who, why and what."""
    return str(entry.author), entry.why, [one.file for one in entry.files]
