"""What a change of policy files would do, shown before it is made."""

from __future__ import annotations

import difflib
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from broker.authoring.desk import is_enforced
from broker.authoring.lockout import lockouts
from broker.authoring.meaning import meaning
from broker.authoring.misdirected import misdirected
from broker.authoring.report import harmless, marked_line
from broker.catalogue import catalogue
from broker.colour import Colours
from broker.described import ToolError, described_world
from broker.editing.making import FileContents
from broker.editing.names import shown
from policy_engine import DirectorySource, Faults, Loader, Policy, PolicyError, World
from policy_engine.differing import differing
from policy_engine.edit import Overlay
from policy_engine.impact import impact
from qubesd.config import Config


@dataclass(frozen=True, slots=True)
class Preview:
    """Lines for people: what changes, what that means, and what to warn of."""

    differences: tuple[str, ...]
    meaning: tuple[str, ...]
    warnings: tuple[str, ...]


class Previews:
    """Previews of changes to one policy.

    Args:
        system_info: a file that describes the qubes; ``None`` to ask qubesd, where one runs.
    """

    def __init__(self, config: Config, colours: Colours, system_info: Path | None = None) -> None:
        self._config = config
        self._colours = colours
        self._system_info = system_info
        self._directory = config.policy_dir.resolve()
        self._known = partial(catalogue, is_enforced(config))

    def of(self, before: Mapping[str, bytes], changes: FileContents) -> Preview:
        """The preview of changes that are well formed; ``before`` has the files that are there now."""
        lines, warnings = self._consequences(changes)
        return Preview(self._differences(before, changes), tuple(lines), tuple(warnings))

    def of_text(self, before: Mapping[str, bytes], changes: FileContents) -> Preview:
        """What can be told of changes to a policy that is elsewhere."""
        note = "What it means is not known here: the policy as a whole is in dom0."
        return Preview(self._differences(before, changes), (note,), ())

    def _differences(self, before: Mapping[str, bytes], changes: FileContents) -> tuple[str, ...]:
        return tuple(
            line
            for file, content in sorted(changes.items())
            for line in text_differences(file, before.get(file), content, self._colours)
        )

    def faults(self, faults: Faults, changes: FileContents) -> Iterator[str]:
        """What is wrong with a change, each with the line that it is about."""
        source = self._overlay(changes)
        for error in (*faults.own, *faults.elsewhere):
            yield str(error)
            yield from marked_line(error, source, self._colours)

    def _consequences(self, changes: FileContents) -> tuple[list[str], list[str]]:
        after = self._loaded(changes)
        try:
            before = self._loaded({})
        except PolicyError as error:
            return [f"Now the policy does not load, and every judged call is denied: {error}"], []
        notes, world = [], World.of(())
        try:
            world = described_world(self._system_info, self._config)
        except ToolError as error:
            notes = [f"What it means for the qubes cannot be told: {error}"]
        users = {qube: _user(uid) for uid, qube in self._config.users}
        found = impact(before, after, world, self._known(), users)
        warnings = list(lockouts(before, after, world, found, self._known(), users))
        notes += [] if notes else meaning(found, self._colours)
        notes += map(self._colours.odd, misdirected(differing(before.rules, after.rules)[1]))
        return notes, warnings

    def _loaded(self, changes: FileContents) -> Policy:
        directories = str(self._config.policy_runtime), str(self._directory)
        source = self._overlay(changes)
        return Loader(source, directories, str(self._config.policy_legacy), self._known).load()

    def _overlay(self, changes: FileContents) -> Overlay:
        source = Overlay(DirectorySource())
        source.changes = {str(self._directory / file): content for file, content in changes.items()}
        return source


def text_differences(file: str, before: bytes | None, after: bytes | None, colours: Colours) -> Iterator[str]:
    """The lines that differ, and some around them."""
    old, new = ("" if text is None else text.decode("utf-8", "replace") for text in (before, after))
    name = shown(file)
    lines = difflib.unified_diff(
        old.splitlines(),
        new.splitlines(),
        "/dev/null" if before is None else name,
        "/dev/null" if after is None else name,
        lineterm="",
    )
    marks = {"+": colours.good, "-": colours.bad, "@": colours.faint}
    for line in lines:
        mark = marks.get(line[0])
        yield harmless(line) if mark is None else mark(harmless(line))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
