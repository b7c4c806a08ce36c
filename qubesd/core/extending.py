"""Calling extensions, and what becomes of one that fails.

A failure is logged under the extension's name. A watch or a reaction that fails is passed over; a veto that
fails refuses, for nobody knows what it would have said, and a backup is refused that may lack what one saves.
Who overruns the limit of time is not called any more until the daemon starts again, and what it could have
refused is refused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from qubesd.core.at_work import AtWork
from qubesd.core.backup_files import MOST_ADDED, may_be_added
from qubesd.core.draft import Draft
from qubesd.core.keeper import Keeper
from qubesd.core.overdue import Overdue, within
from qubesd.core.reaction import Reaction
from qubesd.errors import QubesError
from qubesd.events import Event
from qubesd.extension import Extension, Look, On
from qubesd.model.state import Qube
from qubesd.model.view import View

T = TypeVar("T")

_log = logging.getLogger(__name__)

LIMIT = 2.0
"""Seconds that one handler may take."""
_SLOW = 0.2
"""Seconds after which it is told, once, that an extension takes its time."""
_DEEPEST = 8
"""Reactions to what reactions did."""


class _Handler(NamedTuple):
    """``name`` is the extension's."""

    name: str
    kind: type[Event]
    call: Callable[[Any, Any], object]


class Extensions:
    """The extensions of one keeper, which has none before ``use``."""

    def __init__(self, keeper: Keeper, limit: float = LIMIT) -> None:
        """``limit`` is in seconds."""
        self._keeper = keeper
        self._limit = limit
        self._at_work = AtWork(keeper.config.run_dir)
        self._used: dict[str, Extension] = {}
        self._vetoes: tuple[_Handler, ...] = ()
        self._reactions: tuple[_Handler, ...] = ()
        self._out: set[str] = set()
        self._failed_before: set[str] = set()
        self._slow_before: set[str] = set()
        self._depth = 0
        self._within_this = 0.0
        """Seconds that handlers have taken within the one that is at work; they are not its own."""
        keeper.judge = self.judge
        keeper.react = self.react
        keeper.added = self.saved
        keeper.bus.judge = partial(self.judge, keeper)

    def use(self, extensions: Mapping[str, Extension]) -> None:
        """Ask, tell and take over what these say, in the order of their names; to be called once."""
        self._used = dict(sorted(extensions.items()))
        self._vetoes = tuple(_handlers((name, used.vetoes) for name, used in self._used.items()))
        self._reactions = tuple(_handlers((name, used.reactions) for name, used in self._used.items()))
        for watch in _handlers((name, used.watches) for name, used in self._used.items()):
            self._keeper.bus.subscribe(watch.kind, partial(self._tell, watch))

    def judge(self, view: View, event: Event) -> None:
        """Raises the ``QubesError`` of the first veto that refuses, or one of ours where a veto fails."""
        for veto in self._vetoes:
            if isinstance(event, veto.kind):
                self._ask(veto, view, event)

    def react(self, draft: Draft, event: Event) -> None:
        """Add to the draft what reactions to this event do."""
        for reaction in self._reactions:
            if isinstance(event, reaction.kind) and reaction.name not in self._out:
                self._add(reaction, draft, event)

    def entries(self, qube: Qube, before: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
        """What each extension has a running qube find in its database; what it was where that fails."""
        found: dict[str, Mapping[str, str]] = {}
        for name, used in self._used.items():
            if used.entries is None:
                continue
            found[name] = before.get(name, {})
            if name not in self._out:
                try:
                    found[name] = self._within(name, partial(_entries, used.entries, self._keeper, qube))
                except BaseException as error:
                    self._note(name, f"entries of {qube.name!r}", error)
        return found

    def saved(self, qube: Qube) -> dict[str, Path]:
        """The files that extensions add to a backup of the qube, by their names in it.

        Raises:
            QubesError: one fails, or names what cannot be added; nobody knows what the backup would lack.
        """
        found: dict[str, Path] = {}
        for name, used in self._used.items():
            if used.saved is None:
                continue
            try:
                if name in self._out:
                    raise QubesError("it is out of service")
                found = self._within(name, partial(_files, used.saved, self._keeper, qube, found))
            except BaseException as error:
                self._note(name, f"what it saves of {qube.name!r}", error)
                raise QubesError(
                    f"extension {name!r} fails to say what it saves of qube {qube.name!r}, so nothing is "
                    "saved; the daemon's log says more. Mend or remove the extension"
                ) from error
        return found

    def _ask(self, veto: _Handler, view: View, event: Event) -> None:
        if veto.name in self._out:
            raise QubesError("an extension that may refuse this is out of service; the daemon's log says why")
        try:
            said = self._within(veto.name, partial(veto.call, view, event))
            if said is not None:
                raise TypeError(f"it returned {said!r}; a veto refuses by raising a QubesError")
        except QubesError:
            raise
        except BaseException as error:
            self._note(veto.name, type(event).__name__, error)
            raise QubesError(
                "an extension that may refuse this failed, so it is refused; the daemon's log says more"
            ) from error

    def _add(self, reaction: _Handler, draft: Draft, event: Event) -> None:
        mark = draft.mark()
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                raise RecursionError("reactions follow each other without end")
            self._within(reaction.name, partial(reaction.call, Reaction(draft), event))
        except BaseException as error:
            draft.back(mark)
            self._note(reaction.name, type(event).__name__, error)
        finally:
            self._depth -= 1

    def _tell(self, watch: _Handler, event: Event) -> None:
        if watch.name in self._out:
            return
        try:
            self._within(watch.name, partial(watch.call, self._keeper, event))
        except BaseException as error:
            self._note(watch.name, type(event).__name__, error)

    def _within(self, name: str, call: Callable[[], T]) -> T:
        """What one of this extension's handlers says, in its time. Raises ``Overdue`` and whatever it
        raises."""
        outside, self._within_this = self._within_this, 0.0
        begun = time.monotonic()
        try:
            with self._at_work.on(name):
                return within(self._limit, call)
        finally:
            passed = time.monotonic() - begun
            took = passed - self._within_this
            self._within_this = outside + passed
            if took > _SLOW and name not in self._slow_before:
                self._slow_before.add(name)
                _log.warning("extension %r took %.1f seconds, for which every call had to wait", name, took)

    def _note(self, name: str, where: str, error: BaseException) -> None:
        """The first failure of an extension is told with where it was."""
        shown = None if name in self._failed_before else error
        self._failed_before.add(name)
        _log.error("extension %r failed in %s: %r", name, where, error, exc_info=shown)
        if isinstance(error, Overdue):
            self._out.add(name)
            _log.error("extension %r is out of service until the daemon starts again", name)


def _handlers(groups: Iterable[tuple[str, tuple[On[Any], ...]]]) -> Iterator[_Handler]:
    for name, group in groups:
        for one in group:
            yield _Handler(name, one.kind, one.handler)


def _entries(handler: Callable[[Look, Qube], Mapping[str, str]], look: Look, qube: Qube) -> dict[str, str]:
    """What it says; ``TypeError`` or ``ValueError`` where something is no text that can be written."""
    entries = dict(handler(look, qube))
    for key, value in entries.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"expected texts, found {key!r}: {value!r}")
        if "\0" in value:
            raise ValueError(f"a NUL in the value of {key!r}")
        value.encode()
    return entries


def _files(
    handler: Callable[[View, Qube], Mapping[str, Path]], view: View, qube: Qube, found: Mapping[str, Path]
) -> dict[str, Path]:
    """What is found with what it says; ``ValueError`` where one cannot be with the others in a backup."""
    more = dict(handler(view, qube))
    for name, file in more.items():
        if not isinstance(name, str) or not may_be_added(name):
            raise ValueError(f"no file in a backup can be called {name!r}")
        if name in found:
            raise ValueError(f"another extension saves a file {name!r}")
        if not isinstance(file, Path) or not file.is_absolute():
            raise ValueError(f"expected an absolute path, found {file!r}")
    if len(found) + len(more) > MOST_ADDED:
        raise ValueError(f"more than {MOST_ADDED} files of one qube")
    return {**found, **more}
