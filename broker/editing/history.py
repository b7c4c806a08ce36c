"""What the policy was, and who changed it: a line for each change, and the contents by what they hash to.

An edit is promised before the first file of it is touched, and entered when the last one is. What was killed
in between is found promised, and the next edit mends it. Every entry has the whole policy as it was then, so
that any of them can be forgotten without taking another with it.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from broker.editing.entry import Entry, entry_of
from broker.editing.store import give, token_of
from qubesd.disk import sync
from qubesd.errors import PolicyAdminError

MAX_HELD = 128 * 1024 * 1024
"""What all entries together may weigh, in bytes; then the history forgets down to three quarters of it."""

ENTRY_WEIGHT = 64 * 1024
"""What each entry weighs besides the contents that came with it: there are some two thousand at most."""

_FOLDER_MODE, _FILE_MODE = 0o2770, 0o660

Tree = Mapping[str, str]
"""A whole policy: each file and the token of its content."""


class History:
    """The history in one folder. Whoever writes to it holds the lock of the policy. Every method blocks, and
    raises ``OSError`` as the disk does."""

    def __init__(self, folder: Path, group: str = "") -> None:
        self._folder = folder
        self._group = group
        self._log = folder / "log"
        self._promise = folder / "promised"
        self._contents = folder / "contents"

    def entries(self) -> list[Entry]:
        """The oldest first; a line that is damaged is passed over."""
        found = []
        for line in self._lines():
            with suppress(ValueError, TypeError):
                found.append(entry_of(line))
        return found

    def entry(self, number: int) -> Entry:
        """Raises ``PolicyAdminError`` where there is none."""
        found = next((entry for entry in self.entries() if entry.number == number), None)
        if found is None:
            raise PolicyAdminError(f"the history has no entry {number}")
        return found

    def last(self) -> Entry | None:
        """The newest; it tells of the whole policy."""
        for line in reversed(self._lines()):
            with suppress(ValueError, TypeError):
                return entry_of(line)
        return None

    def content(self, token: str) -> bytes:
        """What has this token. Raises ``PolicyAdminError`` where it is lost or damaged."""
        with suppress(FileNotFoundError):
            content = self._place(token).read_bytes()
            if token_of(content) == token:
                return content
        raise PolicyAdminError(f"the history has lost {token}")

    def tree(self, entry: Entry) -> dict[str, str]:
        """The policy after this entry."""
        tree = json.loads(self.content(entry.tree))
        if not isinstance(tree, dict):
            raise PolicyAdminError(f"the history has lost {entry.tree}")
        return tree

    def contents(self, entry: Entry) -> dict[str, bytes] | None:
        """All contents that it speaks of, by token; ``None`` where one is lost."""
        try:
            tokens = {entry.tree, *self.tree(entry).values()}
            return {token: self.content(token) for token in tokens}
        except PolicyAdminError:
            return None

    def weight(self, entry: Entry) -> int:
        """Of what came with an entry: the list of files, and those that it changed."""
        return sum(map(self._size, {entry.tree, *(one.after for one in entry.files if one.after)}))

    def keep(self, contents: Iterable[bytes]) -> None:
        """Have these contents for good."""
        self._furnish()
        kept = False
        for content in contents:
            place = self._place(token_of(content))
            if not place.exists():
                self._write(place, content)
                kept = True
        if kept:
            sync(self._contents)

    def promise(self, entry: Entry) -> None:
        """From now on this change is to be made or, if none of it was made, not to be made."""
        self._write(self._promise, entry.line())
        sync(self._folder)

    def promised(self) -> Entry | None:
        """The change that was promised and neither entered nor forgotten."""
        try:
            return entry_of(self._promise.read_bytes())
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def forget(self) -> None:
        """What was promised has been entered, or is not to be made."""
        self._promise.unlink(missing_ok=True)
        sync(self._folder)

    def append(self, *entries: Entry) -> None:
        """Enter changes that were made; what is over the bound is forgotten."""
        lines = b"".join(entry.line() for entry in entries)
        fresh = not self._log.exists()
        descriptor = os.open(
            self._log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE
        )
        with open(descriptor, "r+b", buffering=0) as log:
            # A line that was cut short is nobody's entry.
            size = os.fstat(descriptor).st_size
            whole = log.read().rfind(b"\n") + 1
            if whole < size:
                os.ftruncate(descriptor, whole)
            log.write(lines)
            if fresh:
                os.fchmod(descriptor, _FILE_MODE)
            os.fsync(descriptor)
        if fresh:
            give(self._log, self._group)
            sync(self._folder)
        if entries and entries[-1].held > MAX_HELD:
            self._thin()

    def _thin(self) -> None:
        """Forget entries, the oldest about whatever has most, and the contents that only they had."""
        forgotten = _to_forget(self.entries())
        kept: list[Entry] = []
        needed: set[str] = set()
        held = 0
        for entry in self.entries():
            if entry.number in forgotten:
                continue
            try:
                came = {entry.tree, *self.tree(entry).values()} - needed
            except PolicyAdminError:  # it is damaged, and can be restored no more
                continue
            needed |= came
            held += ENTRY_WEIGHT + len(entry.line()) + sum(map(self._size, came))
            kept.append(replace(entry, held=held))
        self._write(self._log, b"".join(entry.line() for entry in kept))
        sync(self._folder)
        for place in self._contents.iterdir():
            if f"sha256:{place.name}" not in needed:
                place.unlink()

    def _size(self, token: str) -> int:
        try:
            return self._place(token).stat().st_size
        except FileNotFoundError:
            return 0

    def _lines(self) -> list[bytes]:
        """Those that are whole."""
        try:
            return self._log.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []

    def _place(self, token: str) -> Path:
        digest = token.removeprefix("sha256:")
        if len(digest) != 64 or not digest.isalnum():
            raise PolicyAdminError("the history is damaged: a token has no form of one")
        return self._contents / digest

    def _furnish(self) -> None:
        for folder in (self._folder, self._contents):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(_FOLDER_MODE)
                give(folder, self._group)
                sync(folder.parent)

    def _write(self, place: Path, content: bytes) -> None:
        unfinished = place.with_name(f".{place.name}.new")
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), _FILE_MODE)
            os.fsync(stream.fileno())
        give(unfinished, self._group)
        unfinished.rename(place)


def tree_content(tree: Tree) -> bytes:
    """A whole policy as the contents have it."""
    return json.dumps(dict(sorted(tree.items())), separators=(",", ":")).encode("ascii")


def following(last: Entry | None, entry: Entry, weight: int) -> Entry:
    """The entry with its number after this one; ``weight`` is of the contents that come with it."""
    number, held = (1, 0) if last is None else (last.number + 1, last.held)
    return replace(entry, number=number, held=held + ENTRY_WEIGHT + len(entry.line()) + weight)


def _to_forget(entries: Sequence[Entry]) -> set[int]:
    """The numbers of those without which the others weigh little enough; never the last one."""
    waiting = defaultdict[str, deque[tuple[Entry, int]]](deque)
    weights = defaultdict[str, int](int)
    before = 0
    for entry in entries[:-1]:
        weight = max(entry.held - before, ENTRY_WEIGHT)
        before = entry.held
        waiting[entry.subject].append((entry, weight))
        weights[entry.subject] += weight
    total, forgotten = sum(weights.values()), set[int]()
    while total > MAX_HELD * 3 // 4:
        heaviest = max(weights, key=lambda subject: weights[subject])
        entry, weight = waiting[heaviest].popleft()
        weights[heaviest] -= weight
        total -= weight
        forgotten.add(entry.number)
    return forgotten
