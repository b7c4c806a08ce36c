"""A change that was judged is made: promised, done file by file, entered; and mended where it was cut short.

Killed at any step, it leaves each file old or new and a promise; whoever works here next finishes what was
begun, and enters what was changed without us.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress

from broker.editing.entry import MAX_WHY, NOBODY, Author, Entry, FileChange
from broker.editing.history import History, following, tree_content
from broker.editing.store import PolicyStore, token_of
from qubesd.errors import NoSuchPolicyFile, PolicyAdminError

_log = logging.getLogger(__name__)

FileContents = Mapping[str, bytes | None]
"""New contents by file (``30-user.policy``, ``include/team-a``); ``None`` takes the file away."""


class Making:
    """Makes changes of one policy. Whoever calls holds its lock; every method raises ``OSError`` as the disk
    does, and nothing is changed then.

    Args:
        is_whole: whether the policy would be whole with these changes.
    """

    def __init__(
        self, store: PolicyStore, history: History, is_whole: Callable[[FileContents], bool]
    ) -> None:
        self._store = store
        self._history = history
        self._is_whole = is_whole

    def settled(self) -> dict[str, bytes]:
        """All files as they are, after what was cut short is mended and the history agrees with them."""
        self._store.clear()
        promised = self._history.promised()
        if promised is not None:
            self._redeem(promised)
            self._store.clear()
        contents = self._store.contents()
        head = self._history.last()
        known: Mapping[str, str] = {}
        with suppress(PolicyAdminError):  # it is lost: then all is found anew
            known = {} if head is None else self._history.tree(head)
        if head is None or known != tokens_of(contents):
            why = "as it was found" if head is None else "changed by other means"
            self._history.append(self._made(NOBODY, known, contents, sorted({*known, *contents}), why, head))
        return contents

    def make(
        self,
        author: Author,
        changes: FileContents,
        order: Sequence[str],
        before: Mapping[str, bytes],
        why: str,
        brought: Sequence[Entry] = (),
    ) -> Entry:
        """Make a change in this order; ``before`` is what ``settled`` found.

        Args:
            brought: what is entered before it, of which the history has the contents.
        """
        after = {file: content for file, content in {**before, **changes}.items() if content is not None}
        last = self._history.last()
        taken = []
        for one in brought:
            last = following(last, one, self._history.weight(one))
            taken.append(last)
        entry = self._made(author, tokens_of(before), after, order, why, last)
        self._history.promise(entry)
        try:
            self._put(changes, order, before)
        except BaseException:
            self._history.forget()
            raise
        self._enter(*taken, entry)
        return entry

    def _put(self, changes: FileContents, order: Sequence[str], before: Container[str]) -> None:
        """Make a change file by file; where the disk fails, make all of it what it was."""
        for position, file in enumerate(order):
            content = changes[file]
            try:
                if content is None:
                    self._store.remove(file)
                else:
                    self._store.write(file, content)
            except BaseException:
                for made in reversed(order[: position + 1]):
                    self._store.put_back(made, made in before)
                raise

    def _enter(self, *entries: Entry) -> None:
        """Enter what was made. Where the disk fails the promise stands, and the next edit enters that."""
        try:
            self._history.append(*entries)
            self._history.forget()
            self._store.clear()
        except OSError as error:
            _log.error("the history: %s", error)

    def _made(
        self,
        author: Author,
        before: Mapping[str, str],
        after: Mapping[str, bytes],
        order: Iterable[str],
        why: str,
        last: Entry | None,
    ) -> Entry:
        """The entry of a change after the last one; its contents are kept."""
        tree = tokens_of(after)
        files = [
            FileChange(file, before.get(file), tree.get(file))
            for file in order
            if before.get(file) != tree.get(file)
        ]
        came = [after[one.file] for one in files if one.after is not None]
        kept = tree_content(tree)
        self._history.keep([kept, *came])
        entry = Entry(0, time.time(), author, tuple(files), why[:MAX_WHY], token_of(kept), 0)
        return following(last, entry, len(kept) + sum(map(len, came)))

    def _redeem(self, promised: Entry) -> None:
        """Finish a change that was cut short, or forget it where nothing of it was made or somebody else has
        been at its files since."""
        last = self._history.last()
        if last is None or last.number < promised.number:
            now = {one.file: self._token(one.file) for one in promised.files}
            missing = [one for one in promised.files if now[one.file] != one.after]
            begun = len(missing) < len(promised.files)
            if begun and all(now[one.file] == one.before for one in missing) and self._finish(missing):
                self._history.append(promised)
        self._history.forget()

    def _finish(self, missing: Sequence[FileChange]) -> bool:
        """Make the rest of a change, if it still goes with what others have done."""
        try:
            rest = {
                one.file: None if one.after is None else self._history.content(one.after) for one in missing
            }
        except PolicyAdminError:
            return False
        if rest and not self._is_whole(rest):
            return False
        self._put(rest, list(rest), [one.file for one in missing if one.before is not None])
        return True

    def _token(self, file: str) -> str | None:
        try:
            return token_of(self._store.read(file))
        except NoSuchPolicyFile:
            return None


def tokens_of(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {file: token_of(content) for file, content in contents.items()}
