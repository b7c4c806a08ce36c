"""Carrying out a restore through the Admin API, in the order of the stock tool (``spec/backup.md`` 4).

A restored qube cannot start until all of it is there. Where its data cannot be brought in it is removed
again; a property, tag or feature that the system refuses is told, and the qube goes without.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from broker.backup.added import put
from broker.backup.archive import Archive, Saved
from broker.backup.plan import Plan, Step
from broker.backup.progress import counted
from broker.backup.system import LiveSystem, Refused
from qubesd.core.backup_content import CONTENT, PATH, SIZE
from qubesd.core.folders import FIREWALL, NOTES
from qubesd.errors import QubesError
from qubesd.model.firewall import line
from qubesd.model.properties import table, text
from qubesd.model.state import Assignment
from qubesd.store.firewall import load

IN_PROGRESS = "backup-restore-in-progress"
"""The tag that forbids a start (``spec/domains.md``)."""

_LATER = ("netvm", "default_dispvm")
_NOT = frozenset(("name", "label", "template", "dispid", "uuid", "qid", "installed_by_rpm", *_LATER))
_MARKS = frozenset((CONTENT, PATH, SIZE))
_PRELOADING = "preload-dispvm"
_GIVEN = re.compile(r"(disp-)?created-by-.*|audiovm-.*|guivm-.*")
"""Tags that say of this system who made a qube and who serves it, which it sets itself."""


class Restore:
    """One restore.

    Args:
        warn: is told, in words, what was not restored.
        count: is told of the bytes of images that were read.
        files: the new folder that gets the files that extensions added; ``None`` to leave them.
    """

    def __init__(
        self,
        archive: Archive,
        system: LiveSystem,
        plan: Plan,
        warn: Callable[[str], None],
        count: Callable[[int], None],
        files: Path | None = None,
    ) -> None:
        self._archive = archive
        self._system = system
        self._plan = plan
        self._warn = warn
        self._count = count
        self._files = files

    def run(self) -> list[str]:
        """The names of the qubes that are there now.

        Raises:
            QubesError: nobody answers any more.
        """
        self._labels = self._system.labels()
        made = [step for step in self._plan.steps if self._make(step)]
        done = [step for step in made if self._fill(step)]
        for step in done:
            self._connect(step)
            self._try(step, partial(self._system.ask, "admin.vm.tag.Remove", step.name, IN_PROGRESS))
        for step in done:
            self._set_features(step, preloading=True)
        return [step.name for step in done]

    def _make(self, step: Step) -> bool:
        """An empty qube, marked; whether it is there."""
        qube = step.saved.qube
        label = text(qube.properties.get("label"))
        if label not in self._labels:
            self._warn(f"{step.name}: there is no label {label!r}; it is red now")
            label = "red"
        service = f"admin.vm.Create.{qube.klass}"
        try:
            self._system.ask(service, argument=step.template, payload=f"name={step.name} label={label}")
        except Refused as error:
            self._warn(f"{step.name}: cannot be made: {error}")
            return False
        self._try(step, partial(self._system.ask, "admin.vm.tag.Set", step.name, IN_PROGRESS))
        if qube.properties.get("template_for_dispvms") is True:
            self._set(step, "template_for_dispvms")
        return True

    def _fill(self, step: Step) -> bool:
        """All that the qube has but its connections; whether its data are there."""
        for name in step.saved.qube.properties:
            if name not in _NOT:
                self._set(step, name)
        self._set_features(step, preloading=False)
        self._set_tags(step)
        for assignment in step.saved.qube.assignments:
            self._try(step, partial(self._assign, step.name, assignment))
        try:
            for volume in step.saved.images:
                self._import(step, volume)
        except QubesError as error:
            self._warn(f"{step.name}: not restored: {error}")
            self._try(step, partial(self._system.ask, "admin.vm.Remove", step.name))
            return False
        for name, restore in ((FIREWALL, self._set_firewall), (NOTES, self._set_notes)):
            if name in step.saved.files:
                self._try(step, partial(restore, step.name, step.saved))
        for name, path in step.saved.added.items():
            self._put(step, name, path)
        return True

    def _put(self, step: Step, name: str, path: str) -> None:
        """A file that an extension added, where it was asked for."""
        if self._files is None:
            self._warn(
                f"{step.name}: file {name!r} of an extension was left; --files DIR puts it into a folder"
            )
            return
        content = self._archive.small(path)
        try:
            put(self._files, step.name, name, content)
        except OSError as error:
            self._warn(f"{step.name}: file {name!r} of an extension: {error.filename}: {error.strerror}")

    def _set_features(self, step: Step, preloading: bool) -> None:
        """The features; those about disposables made ahead later, for they start some at once."""
        for name, value in step.saved.qube.features.items():
            if name not in _MARKS and name.startswith(_PRELOADING) is preloading:
                self._try(step, partial(self._system.ask, "admin.vm.feature.Set", step.name, name, value))

    def _set_tags(self, step: Step) -> None:
        for tag in sorted(step.saved.qube.tags):
            if tag != IN_PROGRESS and not _GIVEN.fullmatch(tag):
                self._try(step, partial(self._system.ask, "admin.vm.tag.Set", step.name, tag))

    def _connect(self, step: Step) -> None:
        """What leads to other qubes: without the one that it led to, the qube has no network."""
        for name in _LATER:
            if name in step.saved.qube.properties:
                self._set(step, name)

    def _set(self, step: Step, name: str) -> None:
        """Give a property its value, names of qubes as they are here."""
        qube = step.saved.qube
        if name not in table(qube.klass):
            self._warn(f"{step.name}: property {name!r} is not known here")
            return
        value = text(qube.properties[name])
        if table(qube.klass)[name].type == "vm":
            value = self._plan.names.get(value, value)
        try:
            self._system.ask("admin.vm.property.Set", step.name, name, value)
        except Refused as error:
            self._warn(f"{step.name}: property {name!r}: {error}")
            if name == "netvm":
                self._try(step, partial(self._system.ask, "admin.vm.property.Set", step.name, name, ""))

    def _assign(self, qube: str, assignment: Assignment) -> None:
        backend = self._plan.names.get(assignment.backend, assignment.backend)
        port, identity = (
            "_" if one == "*" else one.replace(":", "+") for one in (assignment.port, assignment.identity)
        )
        pairs = {"mode": assignment.mode, **{f"_{key}": one for key, one in assignment.options.items()}}
        payload = " ".join("{}='{}'".format(key, one.replace("'", "\\'")) for key, one in pairs.items())
        service = f"admin.vm.device.{assignment.devclass}.Assign"
        self._system.ask(service, qube, f"{backend}+{port}+{identity}", payload)

    def _import(self, step: Step, volume: str) -> None:
        path, most = self._archive.image(step.saved, volume)
        with self._archive.reading(path, most) as reader:
            self._system.import_image(
                step.name, volume, reader.entry.size, lambda: counted(reader.pieces(), self._count)
            )

    def _set_firewall(self, qube: str, saved: Saved) -> None:
        rules = load(self._archive.small(saved.files[FIREWALL]), saved.files[FIREWALL])
        payload = "".join(f"{line(rule)}\n" for rule in rules)
        self._system.ask("admin.vm.firewall.Set", qube, payload=payload)

    def _set_notes(self, qube: str, saved: Saved) -> None:
        notes = self._archive.small(saved.files[NOTES]).decode("utf-8", "replace")
        self._system.ask("admin.vm.notes.Set", qube, payload=notes)

    def _try(self, step: Step, act: Callable[[], object]) -> None:
        try:
            act()
        except Refused as error:
            self._warn(f"{step.name}: {error}")
