"""The policy of Qubes 4.0 → rules in files of today, such that every call is decided as before
(``spec/policy-daemon.md`` 11).

Where the places that the configuration tools look at would change a decision, the rules of a service go to
another one: in the end to the very line that has the old directory read. Nothing is written here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from policy_engine.catalogue import Catalogue
from policy_engine.delegation import AnyRule
from policy_engine.edit import Overlay
from policy_engine.errors import PolicyError, quoted_path
from policy_engine.format import format_rule
from policy_engine.legacy_files import INPUT_FILE, USER_FILE, file_for, parted
from policy_engine.load import Loader
from policy_engine.loading import called_by
from policy_engine.model import ANY, AnyQube, Deny, Inclusion, Rule
from policy_engine.policy import Policy
from policy_engine.read import MAX_FILE, Origin, lines_of
from policy_engine.read_dialect import is_dialect
from policy_engine.sameness import Outline, applies, outline, same
from policy_engine.source import PolicySource

SET_ASIDE = ".rpmsave"
"""What is put behind the name of a file that was converted. The loader passes over such files."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where rules are put: before a line of a policy file, which may not be there yet.

    Attributes:
        file: its name in the directory of the configured policy.
        line: counted from 1; 0 for the top, ``None`` for the end.
    """

    file: str
    line: int | None = 0

    @property
    def key(self) -> tuple[str, float]:
        """Sorts before what the loader reads after it."""
        return self.file, float("inf") if self.line is None else self.line - 0.5


Put = tuple[Place, tuple[Rule, ...]]


@dataclass(frozen=True)
class Conversion:
    """What is to be done, and what comes of it.

    Attributes:
        before, after: the policy as it is and as it will be.
        files: the new content of policy files, by path.
        taken: where the rules of each of these files come from: the files of the old directory.
        aside: the new names of files of the old directory, by their names.
        left: the names of those that cannot be said in another way and so stay.
        unlike: the services of which calls may be decided differently.
    """

    before: Policy
    after: Policy
    files: dict[str, bytes]
    taken: dict[str, list[str]]
    aside: dict[str, str]
    left: list[str]
    unlike: list[str]


def convert(
    source: PolicySource,
    directories: Sequence[str],
    legacy: str,
    catalogue: Callable[[], Catalogue] | None = None,
) -> Conversion:
    """What converting does to a policy.

    Args:
        directories: as of ``Loader``; the last one holds the configured policy, to which files are added.

    Raises:
        PolicyError: the policy does not load, or would not once the old files have other names.
    """
    before = Loader(source, directories, legacy, catalogue).load()
    without = Loader(_Without(source, legacy), directories, legacy, catalogue).load()
    files = _Files(source, directories)
    converting = _Converting(files, before.rules, without.rules)
    for service in converting.services:
        converting.place(service)
    contents, taken = converting.contents()

    names = source.names(legacy) if source.is_directory(legacy) else []
    read = [name for *_, name in called_by(names)]
    left = [name for name in read if name.startswith("+")]
    aside = _aside([name for name in read if name not in left], set(names))
    overlay = Overlay(source)
    overlay.changes = {**contents, **dict.fromkeys(_own(source, legacy, aside))}
    after = Loader(_Without(overlay, legacy, left), directories, legacy, catalogue).load()
    return Conversion(before, after, contents, taken, aside, left, converting.unlike)


class _Without:
    """A source in which a directory has only a few of its files, as far as it is listed."""

    def __init__(self, source: PolicySource, directory: str, left: Collection[str] = ()) -> None:
        self._directory = directory
        self._left = left
        self._source = source
        self.read = source.read
        self.resolve = source.resolve
        self.is_file = source.is_file
        self.is_directory = source.is_directory

    def names(self, directory: str) -> list[str]:
        names = self._source.names(directory)
        return [name for name in names if name in self._left] if directory == self._directory else names


def _own(source: PolicySource, directory: str, names: Iterable[str]) -> Iterator[str]:
    """The files of a directory that are no links to others."""
    place = source.resolve(directory)
    for name in names:
        path = source.resolve(posixpath.join(directory, name))
        if path == posixpath.join(place, name):
            yield path


def _aside(names: Sequence[str], taken: set[str]) -> dict[str, str]:
    """New names for files, none of which is taken."""
    aside = {}
    for name in names:
        new = name + SET_ASIDE
        while new in taken:
            new += SET_ASIDE
        taken.add(new)
        aside[name] = new
    return aside


class _Files:
    """The files of the configured policy, as far as rules can be put into them."""

    def __init__(self, source: PolicySource, directories: Sequence[str]) -> None:
        self._source = source
        self._directory = directories[-1]
        self._hidden = {name for directory in directories[:-1] for name in source.names(directory)}

    def path(self, name: str) -> str:
        return self._source.resolve(posixpath.join(self._directory, name))

    def content(self, name: str) -> bytes:
        """Of the file; nothing where there is none."""
        path = self.path(name)
        return self._source.read(path, MAX_FILE + 1) if self._source.is_file(path) else b""

    def takes_rules(self, name: str) -> bool:
        """Whether the file counts, and is not in the delegation dialect."""
        return name not in self._hidden and not is_dialect(self.content(name))

    def place_of(self, rule: Rule) -> Place | None:
        """Where the directive stands that has the old directory read; ``None`` if it is out of reach."""
        name, line = root(rule)
        top = posixpath.join(self._directory, name)
        if rule.included_from is None or outermost(rule.included_from).file != top:
            return None
        lines = dict(lines_of(self.content(name), Origin(top), lambda error: None))
        return Place(name, line) if lines.get(line, "").split() == ["!compat-4.0"] else None


def root(rule: AnyRule) -> tuple[str, int]:
    """The name of the file of a policy directory, and the line in it, that a rule came by."""
    if rule.included_from is None:
        return posixpath.basename(rule.file), rule.line or 0
    inclusion = outermost(rule.included_from)
    return posixpath.basename(inclusion.file), inclusion.line


def outermost(inclusion: Inclusion) -> Inclusion:
    while inclusion.within is not None:
        inclusion = inclusion.within
    return inclusion


class _Converting:
    """Finds a place for the rules of one service after the other.

    Attributes:
        services: those that the old directory has rules for.
        unlike: those for which no place was found that leaves every decision as it is.
    """

    def __init__(self, files: _Files, before: Sequence[AnyRule], without: Sequence[AnyRule]) -> None:
        known = set(without)
        self._files = files
        self._before = before
        self._without = without
        self._old = [rule for rule in before if isinstance(rule, Rule) and rule not in known]
        self._today: dict[str, list[tuple[tuple[str, float], AnyRule]]] = {}
        self._puts: dict[str, list[Put]] = {}
        # The empty service cannot be named in a rule of today.
        self.services = sorted({rule.service for rule in self._old} - {""})
        self.unlike: list[str] = []

    def place(self, service: str) -> None:
        before = [rule for rule in self._before if applies(rule, service)]
        options = list(self._options(service))
        if not options:
            raise PolicyError(
                "dialect",
                f"is in the delegation dialect, or hidden; the rules for {service} need a file to stand in",
                file=self._files.path(USER_FILE),
            )
        for puts in options:
            if same(service, before, self._after(service, puts)):
                break
        else:
            # With all that is denied, wherever it comes to stand.
            puts = options[-1]
            self.unlike.append(service)
        self._puts[service] = puts

    def contents(self) -> tuple[dict[str, bytes], dict[str, list[str]]]:
        """The new content of each file, by path, and the files that its new rules come from."""
        by_file: dict[str, list[Put]] = {}
        for puts in self._puts.values():
            for put in puts:
                by_file.setdefault(put[0].file, []).append(put)
        contents, taken = {}, {}
        for name, puts in sorted(by_file.items()):
            old = b"" if name == INPUT_FILE and self._can_replace(name) else self._files.content(name)
            contents[self._files.path(name)] = _content(old, puts)
            taken[self._files.path(name)] = _origins(rule for _, rules in puts for rule in rules)
        return contents, taken

    def _options(self, service: str) -> Iterator[list[Put]]:
        """Where the rules may go, the best first."""
        said = {outline(rule) for rule in self._without if isinstance(rule, Rule) and rule.service == service}
        block = [rule for rule in self._old if rule.service == service]
        once: dict[Outline, Rule] = {}
        for rule in block:
            # Where the directory is read more than once, nothing is said by the later times.
            once.setdefault(outline(rule), rule)
        every = list(once.values())
        written = [rule for rule in every if rule.line is not None]
        missing = [rule for rule in written if outline(rule) not in said]
        lists = [part for rules in (missing, written, every) for part in (_until_denied(rules), rules)]
        here = self._files.place_of(block[0])
        for place in (file_for(service), Place(USER_FILE), Place(USER_FILE, None), here):
            for rules in lists:
                puts = _by_table(service, rules) if isinstance(place, str) else _at(place, rules)
                if puts is not None and all(at == here or self._files.takes_rules(at.file) for at, _ in puts):
                    yield puts

    def _after(self, service: str, puts: Iterable[Put], gone: str = "") -> list[AnyRule]:
        """The rules that apply to a service once these are in their places, and a file is gone."""
        keyed = [(key, rule) for key, rule in self._keyed(service) if key[0] != gone]
        keyed += [(place.key, rule) for place, rules in puts for rule in rules]
        return [rule for _, rule in sorted(keyed, key=lambda one: one[0])]

    def _keyed(self, service: str) -> list[tuple[tuple[str, float], AnyRule]]:
        """The rules of today that apply to a service, with where they came by."""
        known = self._today.get(service)
        if known is None:
            known = self._today[service] = [
                (root(rule), rule) for rule in self._without if applies(rule, service)
            ]
        return known

    def _can_replace(self, name: str) -> bool:
        """Whether nothing is decided differently without what a file says now."""
        if b"!" in self._files.content(name):
            return False
        old = [rule for rule in self._without if root(rule)[0] == name]
        services = {rule.service for rule in old if isinstance(rule, Rule)}
        return all(isinstance(rule, Rule) and rule.service != ANY for rule in old) and all(
            same(service, self._before, self._after(service, self._puts.get(service, ()), name))
            for service in services | {service for service in self._puts if file_for(service) == name}
        )


def _by_table(service: str, rules: Sequence[Rule]) -> list[Put]:
    shown, others = parted(service, rules)
    puts = [(Place(USER_FILE), tuple(others)), (Place(file_for(service)), tuple(shown))]
    return [put for put in puts if put[1]]


def _at(place: Place | None, rules: Sequence[Rule]) -> list[Put] | None:
    if place is None:
        return None
    return [(place, tuple(rules))] if rules else []


def _until_denied(rules: Sequence[Rule]) -> list[Rule]:
    """Up to where everything else is denied, which a policy of today says at its end, if at all."""
    end = (ANY, AnyQube(), AnyQube(), Deny())
    outlines = [outline(rule) for rule in rules]
    return list(rules[: outlines.index(end)] if end in outlines else rules)


def _origins(rules: Iterable[Rule]) -> list[str]:
    return list(dict.fromkeys(rule.file for rule in rules))


def _content(old: bytes, puts: Iterable[Put]) -> bytes:
    """A file with rules put into it."""
    by_place: dict[Place, list[Rule]] = {}
    for place, rules in puts:
        by_place.setdefault(place, []).extend(rules)
    # Later lines first, so that the others keep their numbers.
    for place, added in sorted(by_place.items(), key=lambda one: one[0].key, reverse=True):
        text = "# qrexec-legacy-convert has taken these rules from\n"
        text += "".join(f"#   {quoted_path(file)}\n" for file in _origins(added))
        text += "".join(f"{format_rule(rule)}\n" for rule in added)
        at = len(old) if place.line is None else _start(old, place.line)
        head, tail = old[:at], old[at:]
        if head and not head.endswith((b"\n", b"\r")):
            head += b"\n"
        old = head + text.encode() + (b"\n" + tail if tail else b"")
    return old


def _start(content: bytes, line: int) -> int:
    """Where a line begins; lines are counted from 1, and 0 is the top as well."""
    starts = [0, *(end.end() for end in _LINE_END.finditer(content))]
    return starts[max(line - 1, 0)]


_LINE_END = re.compile(rb"\r\n|\n|\r")
