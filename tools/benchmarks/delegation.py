"""The engine's speed on rules of the delegation dialect, in units of a dictionary look-up.

The workload is made here, always the same: operators by the role of the design, each with rules of its own,
and teams that write theirs within a frame. Decisions rotate over callers, calls, arguments and targets, as
those of a daemon do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, islice
from random import Random

from broker.catalogue import catalogue
from policy_engine import MemorySource, Policy, QubeFacts, Request, World, decide, load, visible
from policy_engine.load import CONFIGURED, RUNTIME
from tools.benchmarks.yardstick import RUNS, Result, lookup_seconds, median_seconds, result

LIMITS = {
    "v5-decision": 40,
    "v5-visible-10000": 12_000,
    "v5-world-update-10000": 600,
}
"""The most that a row may take, in look-ups."""

RULES = 10_000
QUBES = 10_000
OPERATORS = 100
TEAMS = 10
PROJECTS = 4
"""Of each operator; its qubes are shared out among them."""

_BUSY = 200
_REQUESTS = 10_000
"""Different calls of a daemon at work, which come by again and again, and of one that hardly sees a call
twice: there the processor waits for memory more than it decides."""

_TEMPLATES = 20
_LABELS = ("red", "orange", "yellow", "green", "gray", "blue", "purple", "black")

_ROLE = """\
!dialect delegation-1
!define @mine    (@tag:created-by-{source}|@tag:managed-by-{source})
!limit  @tag:operator  qubes=200 running=40 memory=80GiB storage=1TiB
admin.vm.List|admin.Events|admin.vm.Stats  *  @tag:operator  @adminvm|@mine allow
admin.label.List|admin.label.Get           *  @tag:operator  @adminvm   allow
@read:local                  *                @tag:operator  @mine      allow
@execute:local               *                @tag:operator  @mine      allow
admin.vm.property.Set        +netvm           @tag:operator  @mine      allow value=(@tag:shared-net|none)
admin.vm.property.Set        +memory|+maxmem  @tag:operator  @mine      allow value=256..4096
admin.vm.property.Set        +label           @tag:operator  @mine      allow
admin.vm.tag.Set             +backup          @tag:operator  @mine      allow
admin.vm.Create.AppVM        @tag:shared-tpl  @tag:operator @adminvm  allow value=(name={source}_* label=red)
admin.vm.Remove              *                @tag:operator  @mine      allow
"""

_OWN = (
    "admin.vm.property.Get|admin.vm.property.GetAll  *  {me}  {other}  allow",
    "admin.vm.feature.Set|admin.vm.feature.Remove  +service.s{n}  {me}  {project}  allow",
    "qubes.Filecopy|qubes.VMShell  *  {me}  {project},@type:AppVM|{other}  allow",
    "admin.vm.tag.Set|admin.vm.tag.Remove  +{me}-{n}  {me}  @mine  allow",
    "admin.vm.property.GetAll|admin.vm.List  *  {me}  {project},!@label:{label}  allow",
    "admin.vm.Start|admin.vm.Shutdown  *  {me}  {other},!@template:{template}  deny",
    "admin.vm.device.block.Attach|admin.vm.device.block.Detach  {other}|@mine  {me}  {project}  allow",
    "work.Run  +job{n}|+task{n}*  {me}  {other}  allow",
    "admin.vm.Create.AppVM  {template}  {me}  @adminvm  allow value=(name={{source}}_{n}* label={label})",
    "work.*  *  {me}  {project},!{other}  allow",
    "qubes.OpenURL  *  {me}  {project},!{other}  ask default_target={other}",
)
"""What operators let themselves be granted, besides their role."""

_FRAMED = (
    "@execute:local  *  {me}  @tag:{team},@label:{label}  deny",
    "admin.vm.property.Get|admin.vm.feature.Get  *  @tag:{team}  @type:AppVM,!{project}  allow",
    "admin.vm.feature.Set  +team.f{n}*  {me}  @type:AppVM,!@label:{label}  allow",
    "qubes.Filecopy  *  {me}  {project}|@tag:{team},!{other}  allow",
)
"""What a team writes for its own."""

_CALLS = (
    *(("admin.vm.property.Get", f"+{name}") for name in ("netvm", "label", "memory", "template")),
    ("admin.vm.property.GetAll", "+"),
    ("admin.vm.property.Set", "+netvm"),
    ("admin.vm.property.Set", "+autostart"),
    ("admin.vm.List", "+"),
    ("admin.vm.Start", "+"),
    ("admin.vm.Remove", "+"),
    ("admin.vm.feature.Get", "+os"),
    ("admin.vm.feature.Set", "+service.s{n}"),
    ("admin.vm.feature.Set", "+team.f{n}-x"),
    ("admin.vm.tag.Set", "+{me}-{n}"),
    ("admin.vm.tag.Set", "+backup"),
    ("admin.vm.device.block.Attach", "+{qube}+sda"),
    ("qubes.Filecopy", "+"),
    ("qubes.VMShell", "+"),
    ("work.Run", "+job{n}"),
    ("work.Run", "+task{n}-now"),
    ("work.Report", "+daily"),
    ("other.Service", "+argument"),
)


def run() -> list[Result]:
    """Every row."""
    files = policy_files()
    policy, world = _loaded(files), World.of(qubes())
    if len(policy.rules) != RULES:
        raise RuntimeError(f"the workload has {len(policy.rules)} rules, not {RULES}")
    return [
        _row("v5-decision", lambda: _decision_seconds(policy, world, _BUSY)),
        _row("v5-decision-10000-calls", lambda: _decision_seconds(policy, world, _REQUESTS)),
        _row("v5-visible-10000", lambda: _visible_seconds(policy, world)),
        _row("v5-world-update-10000", lambda: _update_seconds(world)),
        _row("v5-load-10000", lambda: median_seconds(lambda: _loaded(files), passes=1)),
        _row("v5-first-decision", lambda: _first_decision_seconds(files, world)),
    ]


def _row(name: str, seconds: Callable[[], float]) -> Result:
    """A row beside its own yardstick."""
    return result(name, seconds(), lookup_seconds(), LIMITS.get(name))


def qubes() -> Iterator[QubeFacts]:
    """dom0, templates, the operators, and what these have: each qube of one operator's project and of its
    team, every tenth managed by another operator as well."""
    yield QubeFacts("dom0", "00000000-0000-0000-0000-000000000000", "AdminVM", power_state="Running")
    for number in range(_TEMPLATES):
        yield _facts(f"tpl-{number}", "TemplateVM", number, {"shared-tpl"} if number % 2 else set())
    for number in range(OPERATORS):
        yield _facts(f"op-{number}", "AppVM", number, {"operator", f"team-{number % TEAMS}"})
    for number in range(QUBES - 1 - _TEMPLATES - OPERATORS):
        owner = number % OPERATORS
        tags = {f"created-by-op-{owner}", f"team-{owner % TEAMS}", _project(owner, number // OPERATORS)}
        if number % 10 == 0:
            tags.add(f"managed-by-op-{(owner + 1) % OPERATORS}")
        yield _facts(f"qube-{number}", "AppVM", number, tags)


def _facts(name: str, klass: str, number: int, tags: set[str]) -> QubeFacts:
    label = _LABELS[number % len(_LABELS)]
    return QubeFacts(
        name,
        f"{name}-0000-0000",
        klass,
        frozenset(tags),
        power_state="Running" if number % 3 == 0 else "Halted",
        icon=f"appvm-{label}",
        label="0x000000",
        template=f"tpl-{number % _TEMPLATES}" if klass == "AppVM" else None,
        label_name=label,
    )


def _project(operator: int, number: int) -> str:
    return f"project-{operator}-{number % PROJECTS}"


def policy_files() -> dict[str, bytes]:
    """``RULES`` rules: the role with the teams' frames, the frames, and a file for each operator."""
    chance = Random(1)
    role = _ROLE + "".join(
        f"*  *  @tag:team-{team}  @tag:team-{team}  !include include/team-{team}\n" for team in range(TEAMS)
    )
    files = {"30-operators.policy": role}
    of_role = sum(not line.startswith("!") for line in _ROLE.splitlines())
    framed = 4 * len(_FRAMED)
    for team in range(TEAMS):
        members = range(team, OPERATORS, TEAMS)
        rules = [
            form.format(**_words(chance, chance.choice(members), number), team=f"team-{team}")
            for number, form in enumerate(islice(cycle(_FRAMED), framed))
        ]
        files[f"include/team-{team}"] = "\n".join(["!dialect delegation-1", *rules, ""])
    share, over = divmod(RULES - of_role - TEAMS * framed, OPERATORS)
    for operator in range(OPERATORS):
        forms = islice(cycle(_OWN), share + (operator < over))
        rules = [form.format(**_words(chance, operator, number)) for number, form in enumerate(forms)]
        files[f"40-op-{operator}.policy"] = "\n".join([*_ROLE.splitlines()[:2], *rules, ""])
    return {f"{CONFIGURED}/{path}": text.encode() for path, text in files.items()}


def _words(chance: Random, operator: int, number: int) -> dict[str, object]:
    return {
        "me": f"op-{operator}",
        "other": f"qube-{chance.randrange(QUBES - 1_000)}",
        "project": f"@tag:{_project(operator, number)}",
        "label": chance.choice(_LABELS),
        "template": f"tpl-{chance.randrange(_TEMPLATES)}",
        "n": number // len(_OWN),
    }


def requests() -> list[tuple[str, str, str]]:
    """Calls in no order as ``SERVICE+ARGUMENT``, caller and target: by any operator, half of them on qubes of
    its own, the others on those of its team, any qube, dom0, and what does not exist."""
    chance = Random(2)
    wanted = []
    for number in range(_REQUESTS):
        operator = chance.randrange(OPERATORS)
        service, argument = chance.choice(_CALLS)
        own = f"qube-{operator + OPERATORS * chance.randrange(90)}"
        words = {"me": f"op-{operator}", "n": chance.randrange(10), "qube": own}
        of_team = f"qube-{operator % TEAMS + TEAMS * chance.randrange(900)}"
        others = (of_team, of_team, f"qube-{chance.randrange(9_000)}", "dom0", "gone", "@default")
        target = own if number % 2 else chance.choice(others)
        wanted.append((service + argument.format(**words), f"op-{operator}", target))
    return wanted


def _loaded(files: dict[str, bytes]) -> Policy:
    return load(MemorySource(files, [RUNTIME]), catalogue=lambda: catalogue(enforced=True))


def _decision_seconds(policy: Policy, world: World, different: int) -> float:
    """Of one decision, the mean over so many different calls in turn."""
    calls = requests()[:different]

    def decide_all() -> None:
        for service_and_argument, source, target in calls:
            decide(policy, Request.of(service_and_argument, source, target), world)

    decide_all()
    return median_seconds(decide_all, passes=_REQUESTS // different) / different


def _visible_seconds(policy: Policy, world: World) -> float:
    """Of one list, the mean over all operators and the reads that lists are made of."""
    reads = [
        (f"op-{operator}", service)
        for operator in range(OPERATORS)
        for service in ("admin.vm.List", "admin.vm.property.GetAll", "admin.vm.feature.Get")
    ]

    def see_all() -> None:
        for source, service in reads:
            visible(policy, world, source, service)

    see_all()
    return median_seconds(see_all, passes=1) / len(reads)


def _update_seconds(world: World) -> float:
    """Of one change, in a row of them that each begins with the world which the one before has left."""
    changed = [facts for facts in qubes() if facts.klass == "AppVM"][:: QUBES // 1_000]

    def change_all() -> None:
        now = world
        for facts in changed:
            now = now.with_qube(_tagged(facts))

    return median_seconds(change_all, passes=1) / len(changed)


def _tagged(facts: QubeFacts) -> QubeFacts:
    return replace(facts, tags=facts.tags | {"backup"})


def _first_decision_seconds(files: dict[str, bytes], world: World) -> float:
    """Of the first decision by a policy that was just loaded, each time of another call."""
    times = []
    for service_and_argument, source, target in requests()[:RUNS]:
        policy = _loaded(files)
        started = time.perf_counter()
        decide(policy, Request.of(service_and_argument, source, target), world)
        times.append(time.perf_counter() - started)
    return statistics.median(times)
