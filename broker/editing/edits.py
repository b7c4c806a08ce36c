"""Edits of the policy: each judged as a whole, made under the lock, lasting, and entered in the history.

This is what all doors lead to: the calls of qubesd, the program that the qrexec daemon runs, and dom0's own
commands. What was changed without it, by an editor, is noticed by the next edit and entered before its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from broker.catalogue import catalogue
from broker.editing.entry import Author, Entry
from broker.editing.history import History
from broker.editing.making import FileContents, Making, tokens_of
from broker.editing.names import INCLUDE, SUFFIX, is_kept
from broker.editing.record import Record, part_of, record_of, unknown
from broker.editing.refusal import refusal, relative, told
from broker.editing.store import PolicyStore, check_bounds, token_of
from policy_engine import (
    AnyRule,
    DelegationRule,
    DirectorySource,
    Editing,
    Faults,
    Loader,
    Policy,
    PolicyError,
)
from qubesd.config import Config
from qubesd.disk import why as reason_of
from qubesd.errors import (
    BadPolicyPath,
    NoSuchPolicyFile,
    PolicyProtocolError,
    PolicySyntaxError,
    PolicyTokenError,
    StoreError,
)

_log = logging.getLogger(__name__)

ANY_TOKEN = "any"
"""In the place of a token: whatever the file is."""

NEW_TOKEN = "new"
"""In the place of a token: there is to be no file yet."""

_TOKEN = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Places:
    """Where one policy is.

    Attributes:
        directory: the policy directory that is edited.
        runtime: the one that takes precedence of it; ``None`` where there is none.
        history: the folder of its history.
        group: owns what is written; empty leaves that to the system.
        enforced: as of ``Catalogue``: who decides by this policy carries the Admin API's calls out.
    """

    directory: Path
    runtime: Path | None
    legacy: Path
    history: Path
    group: str
    enforced: bool = True


def places_of(config: Config) -> Places:
    """Where the policy of this configuration is."""
    return Places(
        config.policy_dir,
        config.policy_runtime,
        config.policy_legacy,
        config.policy_history,
        config.socket_group,
    )


def elsewhere(directory: Path, config: Config) -> Places:
    """Of a policy directory that need not be the one of this configuration: then nothing takes precedence of
    it, and its history lies in it, where no loader looks."""
    places = places_of(config)
    if directory.resolve() == places.directory.resolve():
        return places
    return Places(directory, None, places.legacy, directory / ".history", places.group)


class PolicyEdits:
    """All verbs on one policy. Making one touches nothing.

    Every method blocks, on the lock for at most ``policy_store.PATIENCE`` and on the disk; not to be shared
    between threads, while several of these, in any processes, may be at work on one policy. All raise:

        PolicyAdminError: with one of its kinds as each method says; also where others do not let go of the
            lock.
        StoreError: the disk fails, and nothing was changed.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self._store = PolicyStore(places.directory, places.group)
        self._history = History(places.history, places.group)
        self._making = Making(self._store, self._history, lambda changes: self._faults(changes) is None)
        own = self._own = str(self._store.directory)
        views = [[own]] if places.runtime is None else [[own], [str(places.runtime), own]]
        known = partial(catalogue, places.enforced)
        self._editing = Editing(DirectorySource(), views, str(places.legacy), known)
        self._loaders = [Loader(DirectorySource(), view, str(places.legacy), known) for view in views]

    def names(self, included: bool) -> list[str]:
        """The files there as lists name them, sorted."""
        with self._at_work():
            return self._store.names(included)

    def get(self, file: str) -> bytes:
        """Its content. Raises ``BadPolicyPath``, ``NoSuchPolicyFile``."""
        with self._at_work():
            return self._store.read(self._store.real(file))

    def files(self) -> dict[str, bytes]:
        """All files that are edited, kept and backed up, as they are now."""
        with self._at_work():
            return self._store.contents()

    def check_place(self, file: str) -> None:
        """Raises ``BadPolicyPath`` where the name leads elsewhere."""
        self._store.real(file)

    def files_for(self, service: str) -> list[str]:
        """The files with a rule that could apply to a service, in order of evaluation: by name where they are
        below the policy directory, else by path. Raises ``PolicySyntaxError`` where no policy loads."""
        with self._at_work():
            policy = self._loaded(0)
        speaking = (rule.file for rule in policy.rules if _speaks_of(rule, service))
        return [_plain_name(file, self._own) for file in dict.fromkeys(speaking)]

    def replace(self, author: Author, file: str, token: str, content: bytes, why: str = "") -> None:
        """Make it the file's content.

        Raises:
            BadPolicyPath: the name leads elsewhere.
            PolicyProtocolError, PolicyTokenError: this is no token, or not that of the file.
            PolicySyntaxError: with it the policy would not be whole.
        """
        with self._at_work():
            real = self._store.real(file)
            now = self._making.settled()
            check_token(token, self._content(real))
            self._change(author, {real: content}, why, now)

    def remove(self, author: Author, file: str, token: str, why: str = "") -> None:
        """Take the file away, which no other may include any more. Raises as ``replace``, and
        ``NoSuchPolicyFile``."""
        with self._at_work():
            real = self._store.real(file)
            now = self._making.settled()
            content = self._content(real)
            check_token(token, content)
            if content is None:
                raise NoSuchPolicyFile("there is no such file")
            self._change(author, {real: None}, why, now, may_close=False)

    def change(self, author: Author, contents: FileContents, why: str = "") -> Entry | None:
        """Change several files at once, as one entry; ``None`` where all of them are so already.

        Raises:
            BadPolicyPath: one of the names leads elsewhere, or is none of a policy file.
            PolicySyntaxError: with all of it the policy would not be whole.
        """
        with self._at_work():
            return self._change(author, contents, why, self._making.settled())

    def amend(
        self, author: Author, file: str, amended: Callable[[Policy, bytes], bytes], why: str = ""
    ) -> None:
        """Give a file the content that ``amended`` makes of the policy that loads now and of the file, empty
        where there is none; nobody else edits meanwhile. Raises as ``replace``."""
        with self._at_work():
            real = self._store.real(file)
            now = self._making.settled()
            content = amended(self._loaded(-1), self._content(real) or b"")
            self._change(author, {real: content}, why, now)

    def faults(self, contents: FileContents) -> Faults | None:
        """What keeps ``change`` from making these changes; ``None`` where nothing does."""
        with self._at_work():
            return self._faults(contents)

    def notice(self) -> None:
        """Mend what was cut short, and enter what was changed without us."""
        with self._at_work():
            self._making.settled()

    def history(self) -> list[Entry]:
        """The changes that are remembered, the oldest first."""
        with self._at_work():
            return self._history.entries()

    def state(self, number: int) -> dict[str, bytes]:
        """All files as they were after the entry of this number. Raises ``PolicyAdminError`` where that is
        not remembered."""
        with self._at_work():
            tree = self._history.tree(self._history.entry(number))
            return {file: self._history.content(token) for file, token in tree.items()}

    def way_back(self, number: int) -> dict[str, bytes | None]:
        """What ``rollback`` to this entry would change. Raises as ``state``."""
        with self._at_work():
            return self._way_back(number, self._store.contents())

    def rollback(self, author: Author, number: int, why: str = "") -> Entry | None:
        """Make the files what they were after the entry of this number; ``None`` where they are.

        Raises:
            PolicyAdminError: that is not remembered.
            PolicySyntaxError: the policy would not be whole, since what was not kept here is not as it was.
        """
        with self._at_work():
            now = self._making.settled()
            return self._change(author, self._way_back(number, now), why or f"rollback to {number}", now)

    def record(self, frame: str = "") -> Record:
        """The policy and its history; of one file alone where ``frame`` names it."""
        with self._at_work():
            whole = record_of(self._history, self._making.settled())
        return part_of(whole, frame) if frame else whole

    def restore(self, author: Author, record: Record, why: str = "") -> Entry:
        """Make the policy, or the one file that the record is about, what it is in the record, as one change;
        what the record remembers and the history does not comes before it.

        Raises:
            PolicySyntaxError: with it the policy would not be whole.
        """
        with self._at_work():
            now = self._making.settled()
            files = [record.frame] if record.frame else [*record.files, *now]
            changes = self._judged(author, {file: record.files.get(file) for file in files}, now)
            brought = unknown(record.entries, self._history.entries())
            self._history.keep(record.all_contents().values())
            return self._making.make(author, changes, self._order(changes), now, why, brought)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        try:
            with self._store.locked():
                yield
        except OSError as error:
            _log.error("the policy: %s", error)
            raise StoreError(f"the policy was not changed: {reason_of(error)}") from error

    def _content(self, file: str) -> bytes | None:
        try:
            return self._store.read(file)
        except NoSuchPolicyFile:
            return None

    def _loaded(self, view: int) -> Policy:
        try:
            return self._loaders[view].load()
        except PolicyError as error:
            raise PolicySyntaxError(told(error, self._own)) from error

    def _faults(self, contents: FileContents, may_close: bool = True) -> Faults | None:
        changes = {f"{self._own}/{file}": content for file, content in contents.items()}
        return self._editing.faults(changes, may_close)

    def _change(
        self,
        author: Author,
        contents: FileContents,
        why: str,
        before: Mapping[str, bytes],
        may_close: bool = True,
    ) -> Entry | None:
        """Judge a change and make it; ``before`` is what there is."""
        changes = self._judged(author, contents, before, may_close)
        return self._making.make(author, changes, self._order(changes), before, why) if changes else None

    def _judged(
        self,
        author: Author,
        contents: FileContents,
        before: Mapping[str, bytes],
        may_close: bool = True,
    ) -> FileContents:
        """What of a change is none yet. Raises ``BadPolicyPath``, ``PolicySyntaxError``."""
        for file in contents:
            if not is_kept(file) or self._store.real(file) != file:
                raise BadPolicyPath("this name leads elsewhere")
        changes = {file: content for file, content in contents.items() if before.get(file) != content}
        after = {**before, **changes}
        check_bounds({file: content for file, content in after.items() if content is not None})
        faults = self._faults(changes, may_close) if changes else None
        if faults is not None:
            raise refusal(faults, author, self._own)
        return changes

    def _order(self, changes: FileContents) -> list[str]:
        ordered = self._editing.order({f"{self._own}/{file}": content for file, content in changes.items()})
        return [relative(path, self._own) for path in ordered]

    def _way_back(self, number: int, contents: Mapping[str, bytes]) -> dict[str, bytes | None]:
        entry = self._history.entry(number)
        wanted, now = self._history.tree(entry), tokens_of(contents)
        files = [entry.frame] if entry.frame else sorted({*wanted, *now})
        return {
            file: self._history.content(wanted[file]) if file in wanted else None
            for file in files
            if wanted.get(file) != now.get(file)
        }


def check_token(untrusted_token: str, content: bytes | None) -> None:
    """See that a file, ``None`` for none, is the one that the caller means to change.

    Raises:
        PolicyProtocolError: this is no token.
        PolicyTokenError: it is another.
    """
    if untrusted_token == ANY_TOKEN:
        return
    if untrusted_token == NEW_TOKEN:
        if content is not None:
            raise PolicyTokenError("the file is there already")
        return
    if not _TOKEN.fullmatch(untrusted_token):
        raise PolicyProtocolError("expected a token: any, new, or sha256: and 64 digits")
    if content is None:
        raise PolicyTokenError("there is no such file")
    if untrusted_token != token_of(content):
        raise PolicyTokenError("the file was changed meanwhile: get it again")


def _plain_name(path: str, directory: str) -> str:
    file = relative(path, directory)
    return file if file == path else file.removesuffix(SUFFIX).removeprefix(INCLUDE)


def _speaks_of(rule: AnyRule, service: str) -> bool:
    if isinstance(rule, DelegationRule):
        return rule.covers_service(service)
    return rule.service in (service, "*")
