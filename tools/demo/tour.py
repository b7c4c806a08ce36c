"""The tour: the same calls made as alice, as bob and as dom0, and what each was answered."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from broker import client
from broker.colour import Colours
from qubesd.config import Config
from tools.demo.callers import QUBES, Ending, Outcome, attempt, rows, socket_of

CALLERS = ("alice", "bob", "dom0")
ALICES_NEW, BOBS_NEW = "alice_notes", "bob_notes"
CREATE = "admin.vm.Create.AppVM"
SET = "admin.vm.property.Set"
WIDTH = 64
"""Columns of a call, where its answer stands behind it."""
AUDIT_TAIL = 64 * 1024
"""Bytes at the end of the audit log among which the tour looks for its own call."""


@dataclass(frozen=True, slots=True)
class Step:
    """A call that all three make."""

    service: str
    target: str = "dom0"
    argument: str = ""
    payload: str = ""

    def __str__(self) -> str:
        return " ".join(
            filter(None, [self.service + (f"+{self.argument}" if self.argument else ""), self.payload])
        )


STEPS = (
    Step("admin.vm.property.Get", "team-web", "label"),
    Step(SET, "team-web", "label", "purple"),
    Step(SET, "team-web", "memory", "500"),
    Step(SET, "team-web", "memory", "8000"),
    Step(SET, "team-web", "netvm", "sys-net"),
    Step(SET, "team-web", "netvm", "sys-lab"),
    Step("admin.vm.Start", "team-web"),
    Step("admin.vm.CurrentState", "team-web"),
    Step("admin.vm.property.Get", "vault", "label"),
    Step("admin.vm.property.Get", "no-such-qube", "label"),
    Step("admin.vm.tag.Set", "vault", "managed-by-alice"),
    Step("admin.property.Get", "dom0", "default_netvm"),
)
UNDO = (
    Step("admin.vm.tag.Remove", "vault", "managed-by-alice"),
    Step("admin.vm.property.Reset", "team-web", "memory"),
    Step("admin.vm.property.Reset", "team-web", "netvm"),
    Step(SET, "team-web", "label", "orange"),
)
"""What dom0 does after the steps, so that the next tour finds the system as this one did."""


@dataclass(frozen=True, slots=True)
class Tour:
    """``sockets`` is the way in of each caller; ``say`` prints a line."""

    config: Config
    sockets: Mapping[str, Path]
    colours: Colours
    say: Callable[[str], None]

    @classmethod
    def of(cls, config: Config, colours: Colours, say: Callable[[str], None]) -> Tour:
        return cls(config, {caller: socket_of(config, caller) for caller in CALLERS}, colours, say)

    def show(self) -> None:
        """All of it. What is stored is as before at the end; a netvm that was needed goes on running."""
        self._lists()
        self._same_calls()
        self._new_qube()
        self._limits()
        self._team()
        self._denied_call()

    def _call(self, caller: str, step: Step) -> Outcome:
        path = self.sockets[caller]
        return attempt(path, step.service, step.target, step.argument, step.payload.encode())

    def _seen(self, caller: str) -> dict[str, str]:
        """The qubes in this caller's list, each with its state; none where the list itself is denied."""
        listed = self._call(caller, Step(QUBES))
        if listed.ending is not Ending.DONE:
            return {}
        return {row["name"]: row["state"] for row in rows(listed.text)}

    def _lists(self) -> None:
        self._title(f"One list, three callers: {QUBES}")
        seen = {caller: self._seen(caller) for caller in CALLERS}
        self._row("", 16, [(caller, self.colours.title) for caller in CALLERS])
        for name in seen["dom0"]:
            states = [seen[caller].get(name) for caller in CALLERS]
            cells = [(state, self.colours.good) if state else ("-", self.colours.faint) for state in states]
            self._row(name, 16, cells)

    def _same_calls(self) -> None:
        self._title("The same calls, made as each of them")
        self._row("", 52, [(caller, self.colours.title) for caller in CALLERS])
        for step in STEPS:
            outcomes = [self._call(caller, step) for caller in CALLERS]
            self._row(f"{step.target:<13} {step}", 52, [self._cell(outcome) for outcome in outcomes])
        for step in UNDO:
            self._call("dom0", step)
        self.say("")
        self.say(
            "Only dom0 can tell a qube that is hidden (vault) from one that is not there (no-such-qube)."
        )

    def _new_qube(self) -> None:
        self._title("A qube of her own")
        create = Step(CREATE, "dom0", "debian-12", f"name={ALICES_NEW} label=green")
        self._one("bob", create, "not this name")
        self._one("alice", replace(create, argument="fedora-41"), "not her template")
        self._one("alice", replace(create, payload=f"name={ALICES_NEW} label=black"), "not this label")
        self._one("alice", create)
        for caller in CALLERS:
            sees = ALICES_NEW in self._seen(caller)
            answer = self.colours.good("sees it") if sees else self.colours.faint("does not see it")
            self.say(f"  {caller:<6} {QUBES:<{WIDTH}} {answer}")
        self._one("alice", Step("admin.vm.Remove", ALICES_NEW))

    def _limits(self) -> None:
        self._title("What bob may use, all in all: qubes=1 memory=1GiB")
        create = Step(CREATE, "dom0", "debian-12", f"name={BOBS_NEW} label=red")
        self._one("bob", create)
        self._told("bob", replace(create, payload="name=bob_more label=red"))
        self._one("bob", Step(SET, BOBS_NEW, "memory", "2000"))
        self._told("bob", Step("admin.vm.Start", BOBS_NEW))
        self._one("dom0", Step("admin.vm.tag.Set", BOBS_NEW, "managed-by-alice"), "alice may run it")
        self._told("alice", Step("admin.vm.Start", BOBS_NEW))
        self._one("bob", Step("admin.vm.Remove", BOBS_NEW))

    def _team(self) -> None:
        self._title("A file that team-a writes itself, in the frame that dom0 gave it: include/team-a")
        page = Step("admin.vm.feature.Set", "team-web", "page-title", "Home")
        self._one("bob", page)
        self._one("bob", replace(page, argument="title"), "not this feature")
        self._one("bob", replace(page, target="vault"), "out of its frame")
        self._one("bob", replace(page, service="admin.vm.feature.Remove", payload=""))

    def _denied_call(self) -> None:
        self._title("A denied call, and what only dom0 can see of it")
        kill = Step("admin.vm.Kill", "team-web")
        self._told("bob", kill)
        record = self._audited("bob", kill)
        self.say(f"         audit   {json.dumps(record)}")
        why = _rule_text(str(record["rule"])) if record["rule"] else str(record["reason"])
        self.say(f"         because {self.colours.odd(why)}")
        self._one("alice", kill)

    def _one(self, caller: str, step: Step, note: str = "") -> None:
        text, colour = self._cell(self._call(caller, step))
        end = f"{colour(text)}{self.colours.faint(f', {note}' if note else '')}"
        self.say(f"  {caller:<6} {step.target + ' ' + str(step):<{WIDTH}} {end}")

    def _told(self, caller: str, step: Step) -> None:
        """A call that is refused, and all that its caller is told of it."""
        outcome = self._call(caller, step)
        self.say(f"  {caller:<6} {step.target} {step}")
        self.say(f"         is told {self.colours.bad(outcome.text.partition(': ')[2])}")

    def _audited(self, caller: str, step: Step) -> dict[str, object]:
        """The newest audit record of this call. Records are written at the end of the daemon's turn, so that
        of a call is there once a later call is answered."""
        client.call(self.sockets["dom0"], "admin.vmclass.List")
        for line in reversed(_tail(self.config.audit_log, AUDIT_TAIL)):
            record: dict[str, object] = json.loads(line)
            if (record.get("caller"), record.get("service")) == (caller, step.service):
                return record
        raise LookupError(f"{self.config.audit_log}: no record of {step.service} by {caller}")

    def _cell(self, outcome: Outcome) -> tuple[str, Callable[[str], str]]:
        match outcome.ending:
            case Ending.DONE:
                return _brief(outcome.text), self.colours.good
            case Ending.DENIED:
                return "denied", self.colours.bad
            case Ending.FAILED:
                return outcome.text.partition(":")[0], self.colours.odd

    def _title(self, text: str) -> None:
        self.say("")
        self.say(self.colours.title(text))

    def _row(self, head: str, width: int, cells: Sequence[tuple[str, Callable[[str], str]]]) -> None:
        # Padded before it is coloured: marks have no width on the screen, but they have length.
        self.say(
            "  " + f"{head:<{width}}" + "".join(mark(f"{text:<9}") + " " for text, mark in cells).rstrip()
        )


def _brief(answer: str) -> str:
    """What fits a column: of a property its value, of a state its last word, of nothing ``ok``."""
    return answer.split(" ")[-1].rpartition("=")[2] or "ok"


def _tail(path: Path, size: int) -> list[bytes]:
    """The whole lines among the last bytes of a file."""
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - size)
        file.seek(start)
        lines = file.read().splitlines()
    return lines[1:] if start else lines


def _rule_text(rule: str) -> str:
    """What stands at ``FILE:LINE``, words one blank apart; the place itself where it has gone."""
    name, _, line = rule.rpartition(":")
    try:
        text = Path(name).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    except (OSError, ValueError, IndexError):
        return rule
    return " ".join(text.split())
