"""The shipped policies, each with its case file: layers of policy, a world, requests and their answers."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.catalogue import catalogue
from policy_engine import (
    Allowed,
    AnyRule,
    Asked,
    DelegationRule,
    DirectorySource,
    Policy,
    QubeFacts,
    Request,
    Rule,
    World,
    decide,
    format_rule,
    load,
    visible,
)

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests/cases/policy.d"
NOT_READ = shutil.ignore_patterns("demo", "examples")
"""What of the shipped policy is in force only where somebody lays it over the rest."""


@dataclass(frozen=True)
class Case:
    """One case file.

    ``requests`` are (request, wanted decision, file of the deciding rule); ``lists`` are (source, service,
    names).
    """

    layers: tuple[str, ...]
    include: dict[str, str]
    world: World
    requests: tuple[tuple[Request, str, str], ...]
    lists: tuple[tuple[str, str, list[str]], ...]


def read_case(name: str) -> Case:
    document: dict[str, Any] = tomllib.loads((CASES / f"{name}.toml").read_text(encoding="utf-8"))
    return Case(
        tuple(document["layers"]),
        document.get("include", {}),
        World.of([facts(*line.split()) for line in lines(document["qubes"])]),
        tuple(request(line) for line in lines(document["requests"])),
        tuple(listing(line) for line in lines(document["visible"])),
    )


def lines(table: str) -> Iterator[str]:
    return (line for line in table.splitlines() if line.strip())


def facts(name: str, klass: str, *words: str) -> QubeFacts:
    """A row of the world: a word with a ``=`` is a property, another a tag."""
    properties = dict(word.split("=") for word in words if "=" in word)
    return QubeFacts(
        name=name,
        uuid=None,
        klass=klass,
        tags=frozenset(word for word in words if "=" not in word),
        template_for_dispvms="template_for_dispvms" in properties,
        default_dispvm=properties.get("default_dispvm"),
    )


def request(line: str) -> tuple[Request, str, str]:
    asked, _, answer = line.partition("->")
    source, service, target = asked.split()
    decision, file = answer.split()
    return Request.of(service, source, target), decision, file


def listing(line: str) -> tuple[str, str, list[str]]:
    asked, _, names = line.partition("->")
    source, service = asked.split()
    return source, service, names.split()


def install(case: Case, directory: Path) -> Policy:
    """Lay the layers over each other as an administrator would, and load the result."""
    runtime, configured = directory / "run", directory / "etc"
    runtime.mkdir()
    for layer in case.layers:
        shutil.copytree(ROOT / layer, configured, ignore=NOT_READ, dirs_exist_ok=True)
    for name, grants in case.include.items():
        with (configured / "include" / name).open("a", encoding="utf-8") as file:
            file.write(grants + "\n")
    directories = (str(runtime), str(configured))
    return load(DirectorySource(), directories, str(directory / "legacy"), partial(catalogue, enforced=True))


def deciding_rule(decision: object) -> AnyRule:
    rule = getattr(decision, "rule", None)
    assert isinstance(rule, Rule | DelegationRule)
    return rule


def word(decision: object) -> str:
    return "allow" if isinstance(decision, Allowed) else "ask" if isinstance(decision, Asked) else "deny"


NAMES = sorted(path.stem for path in CASES.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_the_case_file(name: str, tmp_path: Path) -> None:
    case = read_case(name)
    policy = install(case, tmp_path)
    given = []
    for asked, _, _ in case.requests:
        decision = decide(policy, asked, case.world)
        given.append((asked, word(decision), Path(deciding_rule(decision).file).name))
    assert given == list(case.requests)


@pytest.mark.parametrize("name", NAMES)
def test_lists_are_those_of_the_case_file(name: str, tmp_path: Path) -> None:
    case = read_case(name)
    policy = install(case, tmp_path)
    for source, service, names in case.lists:
        assert visible(policy, case.world, source, service) == names, f"{service} as {source}"


@pytest.mark.parametrize("name", NAMES)
def test_an_allowed_admin_call_goes_to_dom0_and_nowhere_else(name: str, tmp_path: Path) -> None:
    case = read_case(name)
    policy = install(case, tmp_path)
    calls = [asked for asked, _, _ in case.requests if asked.service.startswith("admin.")]
    decisions = [decide(policy, asked, case.world) for asked in calls]
    assert {decision.target for decision in decisions if isinstance(decision, Allowed)} <= {"dom0"}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        pytest.param("operator", ("operator",), id="role"),
        pytest.param("demo", ("30-demo-", "operator"), id="demo"),
    ],
)
def test_every_rule_that_is_written_out_decides_a_case(
    name: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    case = read_case(name)
    policy = install(case, tmp_path)
    decided = {place(deciding_rule(decide(policy, asked, case.world))) for asked, _, _ in case.requests}
    written = {place(rule) for rule in policy.rules if Path(rule.file).name.startswith(files)}
    assert written
    assert written - decided == set()


def place(rule: AnyRule) -> str:
    return f"{rule.file}:{rule.line}"


def test_what_a_team_writes_decides_only_in_its_frame(tmp_path: Path) -> None:
    case = read_case("demo")
    policy = install(case, tmp_path)
    team = {place(rule): format_rule(rule) for rule in policy.rules if Path(rule.file).name == "team-a"}
    decided = {place(deciding_rule(decide(policy, asked, case.world))) for asked, _, _ in case.requests}
    assert sorted(text for where, text in team.items() if where not in decided) == [
        "admin.vm.feature.* * @tag:team-a vault allow",
        "qubes.Filecopy * @tag:team-a vault allow",
    ]


def test_every_shipped_policy_has_its_case_file() -> None:
    files = {path.relative_to(ROOT).parent for path in (ROOT / "policy.d").rglob("*.policy")}
    assert files == {Path(layer) for name in NAMES for layer in read_case(name).layers}
