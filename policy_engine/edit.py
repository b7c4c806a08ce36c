"""A change of policy files, judged as a whole before anything of it is written.

What counts is what the change does. It is refused for whatever is wrong in the files that it writes, and for
whatever it breaks elsewhere; what was broken before, and stays so, is no reason against it. So a policy that
does not load can be repaired one file after the other.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policy_engine.catalogue import Catalogue
from policy_engine.errors import ClosedFrame, PolicyError
from policy_engine.load import LEGACY, Loader
from policy_engine.read import MAX_FILE, Origin, lines_of
from policy_engine.source import PolicySource

Changes = Mapping[str, bytes | None]
"""The new content of files, by absolute path with links resolved; ``None`` takes a file away."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Why a change is refused.

    Attributes:
        own: what is wrong in the files that it writes.
        elsewhere: what it breaks in other files.
        framed: whether it writes framed files alone, as far as can be told. Who owns those need not know of
            the others, so ``elsewhere`` is not for them.
    """

    own: tuple[PolicyError, ...]
    elsewhere: tuple[PolicyError, ...]
    framed: bool


class Editing:
    """Judges changes of the files of a source; it writes nothing.

    Args:
        views: each a list of policy directories, the one of highest precedence first; a change must be good
            in all of them.
        legacy, catalogue: as of ``Loader``.

    Not to be shared between threads.
    """

    def __init__(
        self,
        source: PolicySource,
        views: Sequence[Sequence[str]],
        legacy: str = LEGACY,
        catalogue: Callable[[], Catalogue] | None = None,
    ) -> None:
        self._overlay = Overlay(source)
        self._loaders = [Loader(self._overlay, view, legacy, catalogue) for view in views]

    def faults(self, changes: Changes, may_close: bool = True) -> Faults | None:
        """What keeps these changes, all at once, from being made; ``None`` where nothing does.

        Args:
            may_close: whether a file may be taken away that a frame asks for. The frame is closed then, as it
                was before there was a file.
        """
        unreadable = list(_unreadable(changes))
        if not unreadable and self.loads(changes, may_close):
            return None
        own = {str(error): error for error in unreadable}
        elsewhere: dict[str, PolicyError] = {}
        framed: set[str] = set()
        ended = True
        for loader in self._loaders:
            self._overlay.changes = {}
            before = loader.examine()
            self._overlay.changes = changes
            after = loader.examine()
            framed |= after.framed
            ended = ended and after.ended
            passed_over = {
                str(frame.error) for frame in after.closed if _may_be_closed(frame, changes, may_close)
            }
            # What cannot be looked at to its end is not changed.
            known = {str(error) for error in before.errors} if after.ended else set()
            for error in after.errors:
                text = str(error)
                if text in passed_over:
                    continue
                if self._overlay.resolve(error.file) in changes:
                    own[text] = error
                elif text not in known:
                    elsewhere[text] = error
        if not own and not elsewhere:
            return None
        return Faults(tuple(own.values()), tuple(elsewhere.values()), not ended or framed >= changes.keys())

    def loads(self, changes: Changes, may_close: bool = True) -> bool:
        """Whether the policy loads with these changes, and no frame is closed but those that have no file.
        ``may_close`` is as for ``faults``."""
        self._overlay.changes = changes
        return all(_loads(loader, changes, may_close) for loader in self._loaders)

    def order(self, changes: Changes) -> list[str]:
        """The files in an order in which the policy loads after each of them, as far as there is one.

        Where there is none, what is included comes before what includes it, and goes after it.
        """
        waiting = sorted(path for path, content in changes.items() if content is not None)
        waiting.sort(key=_depth, reverse=True)
        waiting += sorted((path for path, content in changes.items() if content is None), key=_depth)
        if len(waiting) < 2 or not self.loads(changes):
            return waiting
        made: dict[str, bytes | None] = {}
        tries = 0
        while waiting:
            following = waiting[0]
            for path in waiting:
                tries += 1
                if tries > _MOST_TRIES:
                    break
                if self.loads({**made, path: changes[path]}):
                    following = path
                    break
            waiting.remove(following)
            made[following] = changes[following]
        return list(made)


class Overlay:
    """A source with ``changes`` in place, a ``PolicySource`` itself."""

    def __init__(self, source: PolicySource) -> None:
        self.changes: Changes = {}
        self._source = source

    def names(self, directory: str) -> list[str]:
        resolved = self.resolve(directory)
        made = {posixpath.basename(path) for path in self._written() if posixpath.dirname(path) == resolved}
        try:
            names = {*self._source.names(directory), *made}
        except FileNotFoundError:
            if not made:
                raise
            names = made
        if len(made) < len(self.changes):
            return [name for name in names if self.is_file(posixpath.join(directory, name))]
        return list(names)

    def read(self, path: str, limit: int) -> bytes:
        resolved = self.resolve(path)
        if resolved not in self.changes:
            return self._source.read(path, limit)
        content = self.changes[resolved]
        if content is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return content[:limit]

    def resolve(self, path: str) -> str:
        return self._source.resolve(path)

    def is_file(self, path: str) -> bool:
        resolved = self.resolve(path)
        if resolved in self.changes:
            return self.changes[resolved] is not None
        return self._source.is_file(path)

    def is_directory(self, path: str) -> bool:
        if self._source.is_directory(path):
            return True
        resolved = self.resolve(path)
        return any(posixpath.dirname(made) == resolved for made in self._written())

    def _written(self) -> Iterator[str]:
        return (path for path, content in self.changes.items() if content is not None)


_MOST_TRIES = 500
"""Loads of the policy that a good order is worth."""


def _loads(loader: Loader, changes: Changes, may_close: bool) -> bool:
    try:
        policy = loader.load()
    except PolicyError:
        return False
    return all(_may_be_closed(frame, changes, may_close) for frame in policy.closed)


def _may_be_closed(frame: ClosedFrame, changes: Changes, may_close: bool) -> bool:
    """Whether there is just no file: rules may make room for one that is still to come."""
    return frame.missing and (may_close or frame.path not in changes)


def _unreadable(changes: Changes) -> Iterator[PolicyError]:
    """What no file may hold, whether or not anything includes it."""
    for path, content in changes.items():
        if content is None:
            continue
        if len(content) > MAX_FILE:
            yield PolicyError("io", f"a policy file has at most {MAX_FILE} bytes", file=path)
        else:
            errors: list[PolicyError] = []
            next(iter(lines_of(content, Origin(path), errors.append)), None)
            yield from errors


def _depth(path: str) -> int:
    return path.count("/")
