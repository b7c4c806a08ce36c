"""One walk at random: calls, answers, edits, removals, and after each step the ledger's word on what ran."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from qubesd.api.call import Call
from tools.consenting.household import CALLERS, NETS, POLICIES, TARGETS, Household, Made, Waiting, household
from tools.consenting.ledger import Ledger, Sight

SERVICES = (
    ("admin.vm.CurrentState", ""),
    ("admin.vm.firewall.Reload", ""),
    ("admin.vm.Start", ""),
    ("admin.vm.Kill", ""),
    ("admin.vm.feature.Get", "x"),
    ("admin.vm.feature.Get", "y"),
    ("admin.vm.feature.Set", "x"),
    ("admin.vm.feature.Set", "y"),
    ("admin.vm.notes.Set", ""),
    ("admin.vm.property.Set", "netvm"),
    ("admin.vm.property.Set", "netvm"),
)
MAX_WAITING = 6


@dataclass
class Report:
    """What a walk came to. ``finding`` is what must not be, ``None`` where nothing was found; ``script`` the
    steps so far, kept for a finding."""

    seed: int
    steps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    finding: str | None = None
    script: list[str] = field(default_factory=list)


@dataclass
class Pending:
    """A call or question of the qrexec daemon that waits for the user."""

    call: Call
    task: asyncio.Task[Any]
    asked: Waiting
    sight: Sight
    made: Made | None
    """``None`` where the qrexec daemon asks first."""


class Walk:
    """The steps; ``go`` makes them."""

    def __init__(self, house: Household, seed: int) -> None:
        self._house = house
        self._random = Random(seed)
        self._ledger = Ledger(house)
        self._pending: list[Pending] = []
        self._allowed: list[Call] = []
        self._seen: set[int] = set()
        self.report = Report(seed)

    async def go(self, steps: int) -> Report:
        """So many steps, or up to the first finding."""
        kinds: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (10, self._call),
            (12, self._ask_first),
            (16, self._come),
            (22, self._answer),
            (1, self._edit),
            (2, self._make_anew),
            (1, self._retag),
            (2, self._wait),
        )
        for name in (*CALLERS, *TARGETS, *NETS):
            await self._create(name)
        await self._adopt(POLICIES[0])
        weights, moves = [weight for weight, _ in kinds], [move for _, move in kinds]
        while self.report.steps < steps and self.report.finding is None:
            self.report.steps += 1
            await self._random.choices(moves, weights)[0]()
        for pending in self._pending:
            pending.asked.answer.set_result("deny")
            await pending.task
        return self.report

    def _say(self, step: str) -> None:
        self.report.script.append(step)
        del self.report.script[:-40]

    def _draw(self) -> Call:
        service, argument = self._random.choice(SERVICES)
        payload = b""
        if service == "admin.vm.property.Set":
            payload = self._random.choice((*NETS, "")).encode()
        elif service.endswith(".Set"):
            payload = self._random.choice((b"1", b"2"))
        target = self._random.choice((*TARGETS, *TARGETS, *TARGETS, *NETS))
        return Call(service, argument, self._random.choice(CALLERS), target, payload)

    async def _call(self) -> None:
        await self._carry_out(self._draw(), own=self._random.random() < 0.5)

    async def _come(self) -> None:
        """A call that the qrexec daemon was told to let through; at times twice, or another in its place."""
        if not self._allowed:
            return
        # The latest, mostly: what is old has no yes any more.
        call = self._random.choice(self._allowed[-2:] if self._random.random() < 0.8 else self._allowed)
        if self._random.random() < 0.7:
            self._allowed.remove(call)
        if self._random.random() < 0.4:
            other = self._draw()
            argument = {"x": "y", "y": "x"}.get(call.argument, call.argument)
            call = self._random.choice(
                (
                    replace(call, source=other.source),
                    replace(call, target=other.target),
                    replace(call, payload=other.payload),
                    replace(call, argument=argument),
                )
            )
        await self._carry_out(call, own=self._random.random() < 0.1)

    async def _carry_out(self, call: Call, own: bool) -> None:
        house = self._house
        if (own and house.uuid(call.source) is None) or len(self._pending) >= MAX_WAITING:
            return
        covered = self._ledger.covers(call)
        self._say(f"{'own' if own else 'dom0'}: {call} ({'covered' if covered else 'not covered'})")
        sight = self._ledger.sight(call)
        made, task = house.begin(call, own)
        asked = await house.settle(task)
        self._look(made)
        if asked is not None:
            self.report.counts["asked"] += 1
            self._question(call, task, asked, sight, made)
            if covered:
                self._find(f"asked about {call} though there is a yes")
        else:
            await task

    async def _ask_first(self) -> None:
        if len(self._pending) >= MAX_WAITING:
            return
        call = self._draw()
        self._say(f"policy.sock: {call}")
        sight = self._ledger.sight(call)
        task = self._house.ask_first(call)
        asked = await self._house.settle(task)
        if asked is None:
            covered = self._ledger.covers(call)
            if await task:
                self.report.counts["let through"] += 1
                self._allowed.append(call)
                if not covered and not call.service.endswith(".Set"):
                    self._find(f"let through {call} without a question")
        else:
            self.report.counts["asked first"] += 1
            if call.payload:
                self._find(f"asked about {call} before its payload had come")
            self._question(call, task, asked, sight, None)

    def _question(
        self, call: Call, task: asyncio.Task[Any], asked: Waiting, sight: Sight, made: Made | None
    ) -> None:
        wrong = self._ledger.misshown(call, asked.says)
        if wrong is not None:
            self._find(wrong)
        self._pending.append(Pending(call, task, asked, sight, made))

    async def _answer(self) -> None:
        if not self._pending:
            return
        pending = self._pending.pop(self._random.randrange(len(self._pending)))
        house, call = self._house, pending.call
        house.waiting.remove(pending.asked)
        choice = pending.asked.says["targets"][0]
        answer = self._random.choice((f"allow:{choice}",) * 3 + ("deny", "allow:", f"allow:{choice}\n"))
        still = pending.sight == self._ledger.sight(call) and house.asks_about(call)
        yes = answer == f"allow:{choice}"
        self._say(f"answer {answer!r} to {call} ({'as it was' if still else 'changed'})")
        if yes:
            self._ledger.agreed(pending.sight)
        pending.asked.answer.set_result(answer)
        done = await pending.task
        self.report.counts["yes" if yes else "no"] += 1
        if pending.made is None:
            if done:
                self._allowed.append(call)
            if done is not (yes and still):
                self._find(f"let through: {done}, answered {answer!r} to {call}, unchanged: {still}")
        else:
            self._look(pending.made)
            if (pending.made.number in house.runs) is not (yes and still):
                self._find(
                    f"ran: {pending.made.number in house.runs}, {answer!r} to {call}, unchanged: {still}"
                )
        if yes and not still:
            self.report.counts["voided"] += 1
            self._ledger.void()

    def _look(self, made: Made) -> None:
        """Hold what ran against what the user agreed to."""
        run = self._house.runs.get(made.number)
        if run is None or made.number in self._seen:
            return
        self._seen.add(made.number)
        self.report.counts["ran"] += 1
        sight = self._ledger.sight(made.call)
        if run != (sight.caller, sight.target):
            self._find(f"{made.call} ran for {run}, which is not {sight.caller, sight.target}")
        if not self._ledger.spend(made.call):
            self._find(f"{made.call} ran without a yes of its own")

    async def _edit(self) -> None:
        (policy,) = self._random.choices(POLICIES, (8, 5, 2, 2, 4, 1, 1))
        await self._adopt(policy)

    async def _adopt(self, policy: str) -> None:
        if policy != self._house.policy:
            self._say(f"policy {POLICIES.index(policy)}")
            self._house.adopt(policy)
            self._ledger.policy += 1
            self.report.counts["edits"] += 1

    async def _make_anew(self) -> None:
        name = self._random.choice((*CALLERS, *TARGETS, *NETS, *NETS))
        await self._house.dom0("admin.vm.Kill", name)
        for target in TARGETS:
            await self._house.dom0("admin.vm.property.Set", target, "netvm", b"")
        await self._house.dom0("admin.vm.Remove", name)
        if self._house.uuid(name) is None:
            self._say(f"{name} anew")
            self.report.counts["made anew"] += 1
            await self._create(name)

    async def _create(self, name: str) -> None:
        dom0 = self._house.dom0
        await dom0("admin.vm.Create.StandaloneVM", payload=f"name={name} label=red".encode())
        await dom0("admin.vm.property.Set", name, "netvm", b"")
        await dom0("admin.vm.property.Set", name, "guivm", b"dom0")
        if name in CALLERS:
            await dom0("admin.vm.tag.Set", name, "caller")
        if name in TARGETS:
            await dom0("admin.vm.tag.Set", name, "owned")
        if name in NETS:
            await dom0("admin.vm.tag.Set", name, "net")
            await dom0("admin.vm.property.Set", name, "provides_network", b"True")

    async def _retag(self) -> None:
        name = self._random.choice(TARGETS)
        change = self._random.choice(("Set", "Remove"))
        self._say(f"tag {change} {name}")
        await self._house.dom0(f"admin.vm.tag.{change}", name, "owned")

    async def _wait(self) -> None:
        self._house.now += self._random.choice((1.0, 30.0, 61.0, 601.0))

    def _find(self, what: str) -> None:
        if self.report.finding is None:
            self.report.finding = what


async def walk(root: Path, seed: int, steps: int) -> Report:
    """A walk of so many steps below ``root``, the same for the same seed."""
    async with household(root) as house:
        return await Walk(house, seed).go(steps)
