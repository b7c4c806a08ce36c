"""Rounds of: look at everything, write from several connections at once, kill.

The writers share nothing: each has qubes of its own, and knows what must be in them from the answers to its
own calls. A daemon is also killed while it starts.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from broker.client import CallError, NoReplyError, call
from tools.crashing.checks import disk_faults
from tools.crashing.ledger import ABSENT, QUBE, THERE
from tools.crashing.mix import DISPOSABLE_TEMPLATE, TEMPLATE, Site, draw, listed, read
from tools.crashing.subject import DAEMON, Subject

WRITERS = 6
LONGEST = 0.5
"""Seconds of writing before a kill, at most."""
START = 0.8
"""Seconds about which a daemon needs to start."""
_AMID_START = 0.15
"""The share of daemons that are killed while they start."""


class Finding(Exception):
    """Something that must not be."""


@dataclass(slots=True)
class Report:
    """What a run came to. ``acknowledged``, ``refused`` and ``unanswered`` count the calls by their kind."""

    seed: int
    kills: int = 0
    kills_amid_start: int = 0
    seconds: float = 0.0
    checked: int = 0
    """Values that were read back."""
    acknowledged: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    """Changes that were there though nobody had been told so."""
    finding: str | None = None


class Campaign:
    """One run below one scratch folder; ``report`` can be looked at while it goes on."""

    def __init__(
        self, seed: int, folder: Path, writers: int = WRITERS, command: Sequence[str] = DAEMON
    ) -> None:
        self.report = Report(seed)
        self._random = Random(seed)
        self._subject = Subject(folder / "root", command)
        self._sites = [
            Site(self._subject.socket, f"w{number}", Random(f"{seed}-{number}")) for number in range(writers)
        ]
        self._unnamed = 0
        """Disposables that may have been made without anybody being told their names."""
        self._lock = threading.Lock()

    def run(self, kills: int, progress: Callable[[Report], None] = lambda report: None) -> Report:
        """Kill so often, or until something is found; the last daemon is looked at too, and ends cleanly."""
        began = time.monotonic()
        try:
            self._furnish()
            while self.report.kills < kills:
                self._round()
                progress(self.report)
            self._start()
            self._look()
            self._subject.stop()
        except Finding as finding:
            self.report.finding = f"after kill {self.report.kills}: {finding}"
        except (CallError, NoReplyError, OSError) as error:
            log = self._subject.log()
            self.report.finding = f"after kill {self.report.kills}: a read fails: {error}\n{log}"
        finally:
            self._subject.kill()
            self.report.seconds = time.monotonic() - began
        return self.report

    def _furnish(self) -> None:
        self._start()
        path = self._subject.socket
        call(path, "admin.vm.Create.TemplateVM", payload=f"name={TEMPLATE} label=black".encode("ascii"))
        payload = f"name={DISPOSABLE_TEMPLATE} label=red".encode("ascii")
        call(path, "admin.vm.Create.AppVM", "dom0", TEMPLATE, payload)
        call(path, "admin.vm.property.Set", DISPOSABLE_TEMPLATE, "template_for_dispvms", b"True")
        self._subject.stop()

    def _round(self) -> None:
        self.report.kills += 1
        if self._random.random() < _AMID_START:
            self._subject.begin()
            time.sleep(self._random.uniform(0, START))
            self._subject.kill()
            self.report.kills_amid_start += 1
            return
        self._start()
        self._look()
        writers = [threading.Thread(target=self._write, args=(site,)) for site in self._sites]
        for writer in writers:
            writer.start()
        time.sleep(self._random.uniform(0, LONGEST))
        self._subject.kill()
        for writer in writers:
            writer.join()
        if self.report.finding is not None:
            raise Finding(self.report.finding)

    def _start(self) -> None:
        self._subject.begin()
        if not self._subject.ready():
            raise Finding(f"the daemon does not start:\n{self._subject.log()}")

    def _write(self, site: Site) -> None:
        """Make one call after the other until the daemon is gone."""
        try:
            while self._one(site):
                pass
        except Exception as error:
            with self._lock:
                self.report.finding = f"writer {site.owner}: {error!r}"

    def _one(self, site: Site) -> bool:
        try:
            kind, write = draw(site)
        except (OSError, NoReplyError):
            return False
        outcome = self.report.acknowledged
        try:
            with site.ledger.writing(write.changes):
                answer = call(site.socket, write.service, write.target, write.argument, write.payload)
        except CallError as error:
            kind, outcome = f"{kind}: {error.kind}", self.report.refused
        except (OSError, NoReplyError):
            outcome = self.report.unanswered
        with self._lock:
            outcome[kind] += 1
            if kind == "disposable":
                self._unnamed += outcome is self.report.unanswered
        if kind == "disposable" and outcome is self.report.acknowledged:
            site.ledger.observe((QUBE, answer.decode("ascii")), THERE)
        return outcome is not self.report.unanswered

    def _look(self) -> None:
        """Everything that must be, and nothing else, in the daemon and on the disk."""
        there = listed(self._subject.socket)
        unknown = there - {"dom0", TEMPLATE, DISPOSABLE_TEMPLATE}
        for site in self._sites:
            self._compare(site, there)
            unknown -= set(site.ledger.qubes())
        self._adopt(unknown)
        for fault in disk_faults(self._subject.root):
            raise Finding(fault)
        if "Traceback" in self._subject.log():
            raise Finding(f"the daemon's log has a fault of its own:\n{self._subject.log()}")

    def _compare(self, site: Site, there: set[str]) -> None:
        for thing in sorted(site.ledger.things()):
            if not site.ledger.knows(thing):  # its qube is gone, as this look has found
                continue
            if thing[0] == QUBE:
                value = THERE if thing[1] in there else ABSENT
            elif thing[0] == "pool" or thing[1] in there:
                value = read(site.socket, thing)
            else:
                continue
            may = site.ledger.may(thing)
            if not site.ledger.observe(thing, value):
                raise Finding(f"{' '.join(thing)}: expected one of {sorted(map(str, may))}, found {value!r}")
            self.report.checked += 1
            self.report.kept += len(may) > 1

    def _adopt(self, unknown: set[str]) -> None:
        """Give the qubes that nobody was told of to a writer; only a disposable can be one."""
        if len(unknown) > self._unnamed or not all(name.startswith("disp") for name in unknown):
            raise Finding(f"qubes that nobody made: {sorted(unknown)}")
        self._unnamed = 0
        for name in sorted(unknown):
            self._random.choice(self._sites).ledger.observe((QUBE, name), THERE)
