"""One run of the loader: what the files say, step by step, within the bounds of one policy."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from policy_engine.catalogue import Catalogue
from policy_engine.delegation import EVERYTHING, DelegationRule, Limit
from policy_engine.dialect import Dialect
from policy_engine.errors import ClosedFrame, PolicyError, quoted, quoted_path
from policy_engine.model import ANY, AdminQube, AnyQube, Deny, Inclusion, Rule
from policy_engine.parse import Compat, Fields, Include, IncludeDirectory, IncludeService
from policy_engine.read import MAX_FILE, DirectiveLine, Origin, Refuse, Step, read
from policy_engine.read_dialect import DialectStep, FrameLine, is_dialect, read_dialect
from policy_engine.source import PolicySource

MAX_RULES = 100_000
MAX_READINGS = 20_000
MAX_TEXT = 64 * 1024 * 1024
MAX_DEPTH = 100
"""Bounds of ours on one policy: rules, readings of files, their bytes, and how deep files include each other.
A file that is included twice counts twice."""

MAX_FRAMED_FILE = 64 * 1024
MAX_FRAMED_RULES = 500
"""Bounds on one framed file: who writes it may not use up what the whole policy has."""

_POLICY_NAME = re.compile(r"[0-9a-z_.-]+")
_LEGACY_NAME = re.compile(r"[A-Za-z0-9+._-]+")
_LEGACY_PASSED_OVER = (".rpmsave", ".rpmnew", ".swp")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file of this content has to say when read for this origin."""

    content: bytes
    steps: list[Step | DialectStep]


class Loading:
    """One run of the loader.

    Args:
        refuse: is told of an error with which the policy does not load.
        tell: is told of one that closes a frame, and the policy loads without it.
    """

    def __init__(
        self,
        source: PolicySource,
        legacy: str,
        fields: Fields,
        known: dict[Origin, Reading],
        refuse: Refuse,
        tell: Refuse,
        catalogue: Callable[[], Catalogue] | None,
    ) -> None:
        self.digest = hashlib.sha256()
        self.rules: list[Rule | DelegationRule] = []
        self.limits: list[Limit] = []
        self.files: dict[str, None] = {}
        self.warnings: list[str] = []
        self.closed: list[ClosedFrame] = []
        self.readings: dict[Origin, Reading] = {}
        self._source = source
        self._legacy = legacy
        self._fields = fields
        self._known = known
        self._refuse = refuse
        self._tell = tell
        self._catalogue = catalogue
        self._framed: dict[str, bool] = {}
        self._open: set[tuple[str, bool]] = set()
        # Each file is read once, so that a policy is made of one version of it however often it is included.
        self._contents: dict[str, bytes] = {}
        self._digests: dict[str, bytes] = {}
        self._resolved: dict[str, str] = {}
        self._readings = self._text = 0

    @property
    def framed(self) -> frozenset[str]:
        """The files that were asked for with a frame first, links resolved."""
        return frozenset(path for path, framed in self._framed.items() if framed)

    def top_level(self, directories: Iterable[str]) -> None:
        """Read the files of the policy directories, each name from the first directory that has it."""
        found: dict[str, str] = {}
        for directory in directories:
            for name in self._policy_names(directory):
                found.setdefault(name, directory)
        for name in sorted(found):
            path = posixpath.join(found[name], name)
            self._file(Origin(path), found[name], self._resolve(path))

    def _policy_names(self, directory: str) -> list[str]:
        """The names of a directory's policy files, sorted. Refuses: io, file-name."""
        names = []
        for name in sorted(self._list(directory)):
            if not name.endswith(".policy") or name[0] == ".":
                continue
            if _POLICY_NAME.fullmatch(name):
                names.append(name)
            else:
                message = "expected a file name of a-z, 0-9, '_', '.' and '-'"
                self._refuse(PolicyError("file-name", message, file=posixpath.join(directory, name)))
        return names

    def _list(self, directory: str) -> list[str]:
        try:
            return self._source.names(directory)
        except OSError as error:
            self._refuse(_io(directory, error))
            return []

    def _file(self, origin: Origin, base: str, path: str) -> None:
        """Read a file; ``path`` is the same file with all links resolved."""
        if self._framed.setdefault(path, origin.frame is not None) and origin.frame is None:
            self._refuse(_framed_twice(path, origin))
            return
        opened = (path, origin.legacy is None)
        if opened in self._open:
            self._refuse(
                origin.error("include-loop", f"this file includes itself, by way of {_trail(origin)}")
            )
            return
        self._readings += 1
        if self._readings > MAX_READINGS:
            raise origin.error("io", f"a policy includes at most {MAX_READINGS} files")
        if len(self._open) == MAX_DEPTH:
            raise origin.error("io", f"files include each other at most {MAX_DEPTH} deep")
        self._open.add(opened)
        self.files.setdefault(origin.file)
        try:
            for step in self._steps(origin):
                self._take(step, origin, base)
        finally:
            self._open.remove(opened)

    def _take(self, step: Step | DialectStep, origin: Origin, base: str) -> None:
        match step:
            case DirectiveLine():
                self._follow(step, origin, base)
            case FrameLine():
                self._follow_frame(step, origin, base)
            case Limit():
                self.limits.append(step)
            case DelegationRule():
                self._add((step,), origin)
            case _:
                self._add(step, origin)

    def _steps(self, origin: Origin) -> Iterator[Step | DialectStep]:
        try:
            content = self._content(origin)
        except OSError as error:
            self._refuse(_io(origin.file, error))
            return
        self.digest.update(
            origin.file.encode("utf-8", "surrogateescape") + b"\0" + self._digests[origin.file]
        )
        known = self._known.get(origin)
        if known is not None and known.content == content:
            self.readings[origin] = known
            yield from known.steps
            return
        steps: list[Step | DialectStep] = []
        for step in self._read(content, origin):
            steps.append(step)
            yield step
        self.readings[origin] = Reading(content, steps)

    def _read(self, content: bytes, origin: Origin) -> Iterator[Step | DialectStep]:
        """The steps of a file, in the language that it says it is in."""
        if origin.legacy is not None or not is_dialect(content):
            if origin.frame is not None:
                raise origin.error(
                    "frame", "a framed file is in the dialect: expected !dialect in its first line"
                )
            yield from read(content, origin, self._fields, self._refuse)
        else:
            yield from self._read_dialect(content, origin)

    def _read_dialect(self, content: bytes, origin: Origin) -> Iterator[DialectStep]:
        if self._catalogue is None:
            self._refuse(origin.error("dialect", "the delegation dialect is not understood here"))
            return
        yield from read_dialect(content, origin, Dialect(self._catalogue()), self._refuse)

    def _content(self, origin: Origin) -> bytes:
        content = self._contents.get(origin.file)
        if content is None:
            content = self._contents[origin.file] = self._source.read(origin.file, MAX_FILE + 1)
            self._digests[origin.file] = hashlib.sha256(content).digest()
        if len(content) > MAX_FILE:
            raise origin.error("io", f"a policy file has at most {MAX_FILE} bytes")
        if origin.frame is not None and len(content) > MAX_FRAMED_FILE:
            raise origin.error("frame", f"a framed file has at most {MAX_FRAMED_FILE} bytes")
        self._text += len(content)
        if self._text > MAX_TEXT:
            raise origin.error("io", f"a policy has at most {MAX_TEXT} bytes, includes counted")
        return content

    def _resolve(self, path: str) -> str:
        resolved = self._resolved.get(path)
        if resolved is None:
            resolved = self._resolved[path] = self._source.resolve(path)
        return resolved

    def _follow_frame(self, step: FrameLine, origin: Origin, base: str) -> None:
        """Read a file within the fields of the rule that includes it. What is wrong in it closes the frame,
        not the rest of the policy: what would have reached it is denied."""
        begun = len(self.rules)
        within = Inclusion(origin.file, step.line, origin.included_from)
        file = self._resolve(posixpath.join(base, step.path))
        framed = Origin(file, within, None, step.reach)
        if not self._framed.setdefault(file, True):
            self._refuse(_framed_twice(file, framed))
            return
        try:
            if not self._source.is_file(file):
                message = f"expected a file, found {quoted(step.path)}"
                raise origin.error("not-a-file", message, step.line, step.column)
            self._file(framed, base, file)
            if len(self.rules) - begun > MAX_FRAMED_RULES:
                raise framed.error("frame", f"a framed file has at most {MAX_FRAMED_RULES} rules")
        except PolicyError as error:
            self._tell(error)
            del self.rules[begun:]
            # As if the file held this rule alone, for all that a frame can hold.
            closed = DelegationRule(
                step.text,
                EVERYTHING,
                Deny(),
                origin.file,
                step.line,
                frame=step.reach,
                included_from=origin.included_from,
            )
            self._add((closed,), origin)
            self.closed.append(ClosedFrame(error, file, f"{quoted_path(origin.file)}:{step.line}"))

    def _add(self, rules: Sequence[Rule | DelegationRule], origin: Origin) -> None:
        self.rules.extend(rules)
        if len(self.rules) > MAX_RULES:
            raise origin.error("io", f"a policy has at most {MAX_RULES} rules")

    def _follow(self, step: DirectiveLine, origin: Origin, base: str) -> None:
        """Carry out a directive; ``base`` is what its relative paths are relative to."""
        within = Inclusion(origin.file, step.line, origin.included_from)
        match step.directive:
            case Include(path):
                self._include(path, step, origin, base, origin.legacy, within)
            case IncludeService(service, argument, path):
                self._include(path, step, origin, base, (service, argument), within)
            case IncludeDirectory(path):
                directory = self._resolve(posixpath.join(base, path))
                if not self._source.is_directory(directory):
                    message = f"expected a directory, found {quoted(path)}"
                    self._refuse(origin.error("not-a-directory", message, step.line, step.column))
                    return
                for name in self._policy_names(directory):
                    file = posixpath.join(directory, name)
                    self._file(Origin(file, within), base, self._resolve(file))
            case Compat():
                place = f"{quoted_path(origin.file)}:{step.line}"
                self.warnings.append(
                    f"{place}: !compat-4.0 is transitional, {self._legacy} should be converted"
                )
                self._legacy_directory(within)

    def _include(
        self,
        path: str,
        step: DirectiveLine,
        origin: Origin,
        base: str,
        legacy: tuple[str, str] | None,
        within: Inclusion,
    ) -> None:
        file = self._resolve(posixpath.join(base, path))
        if not self._source.is_file(file):
            message = f"expected a file, found {quoted(path)}"
            self._refuse(origin.error("not-a-file", message, step.line, step.column))
            return
        self._file(Origin(file, within, legacy), base, file)

    def _legacy_directory(self, within: Inclusion) -> None:
        """Read the directory of Qubes 4.0, where a file's name is the service and argument of its rules."""
        for service, any_argument, argument, name in called_by(self._list(self._legacy)):
            file = self._resolve(posixpath.join(self._legacy, name))
            origin = Origin(file, within, (service, argument))
            self._file(origin, self._legacy, file)
            if not any_argument:
                # 4.0 denied at the end of every file; after one without argument, later rules have a say.
                for target in (AnyQube(), AdminQube()):
                    rule = Rule(service, argument, AnyQube(), target, Deny(), file, None, within)
                    self._add((rule,), origin)


def called_by(names: Iterable[str]) -> list[tuple[str, bool, str, str]]:
    """Of the names in the directory of Qubes 4.0 those that are read, in order: the service and argument that
    the file is for, whether that is every argument, and the name."""
    called = []
    for name in names:
        if name[0] == "." or name.endswith(_LEGACY_PASSED_OVER) or not _LEGACY_NAME.fullmatch(name):
            continue
        service, plus, argument = name.partition("+")
        called.append((service, not plus, plus + argument or ANY, name))
    return sorted(called)


def _framed_twice(path: str, origin: Origin) -> PolicyError:
    """What is wrong with the directive that asked for the file, or with the file where there is none."""
    message = f"{quoted_path(path)} is included both with a frame and without one"
    by = origin.included_from
    return (
        origin.error("frame", message)
        if by is None
        else PolicyError("frame", message, file=by.file, line=by.line)
    )


def _io(path: str, error: OSError) -> PolicyError:
    return PolicyError("io", f"cannot be read: {error.strerror}", file=path)


def _trail(origin: Origin) -> str:
    """The directives that led to a file, the latest first."""
    steps, inclusion = [], origin.included_from
    while inclusion is not None:
        steps.append(f"{quoted_path(inclusion.file)}:{inclusion.line}")
        inclusion = inclusion.within
    return ", ".join(steps)
