"""A policy as a graph of who can call whom, in the language of Graphviz (``spec/policy-daemon.md`` 6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product

from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.expression import Expression
from policy_engine.format import format_rule
from policy_engine.model import ANY, Allow, Ask
from policy_engine.policy import Policy
from policy_engine.reach import Call, Reach, Way, lowest
from policy_engine.world import World


class Labels(Enum):
    """What is written on an edge."""

    NONE = "none"
    SERVICE = "service"
    RULE = "rule"
    """Service and argument of the rule, and its action with where it leads and as whom."""
    WHOLE_RULE = "whole rule"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of a policy is drawn.

    Attributes:
        sources: the callers, in this order; ``None`` for all qubes.
        targets: only what leads to one of these texts; ``None`` for everything.
        services: only these, as ``SERVICE`` or ``SERVICE+ARGUMENT``, named by a rule or not; empty for all
            that rules name.
        asks: whether what is asked for is drawn as well.
    """

    sources: Sequence[str] | None = None
    targets: Collection[str] | None = None
    services: Sequence[str] = ()
    asks: bool = False
    labels: Labels = Labels.SERVICE


Progress = Callable[[int, int], object]
"""Told how many steps of how many are done."""


def graph(
    policy: Policy, world: World, scope: Scope, progress: Progress = lambda done, steps: None
) -> Iterator[str]:
    """The lines of the graph, without line ends, in a fixed order; each node and edge once.

    Costs a step for each call and source, and what is drawn.
    """
    drawing = _Drawing(policy, world, scope)
    calls = sorted(dict.fromkeys(_calls(policy, scope.services)), key=lambda call: call[:2])
    sources = world.names if scope.sources is None else scope.sources
    yield "digraph g {"
    for number, (service, _, call) in enumerate(calls):
        for place, source in enumerate(sources):
            progress(number * len(sources) + place, len(calls) * len(sources))
            yield from drawing.lines(service, call, source)
    yield "}"


class _Drawing:
    """What is drawn so far, and what is still to be drawn of a call by a source."""

    def __init__(self, policy: Policy, world: World, scope: Scope) -> None:
        self._reach = Reach(policy, world)
        self._world = world
        self._scope = scope
        self._asks = scope.asks or scope.labels in (Labels.RULE, Labels.WHOLE_RULE)
        self._numbers = {token: number for number, token in enumerate(self._reach.tokens)}
        self._undrawn = (1 << len(self._numbers)) - 1
        self._nodes: set[str] = set()
        self._edges: set[str] = set()
        self._wanted = self._undrawn
        if scope.targets is not None:
            numbers = {self._numbers[target] for target in scope.targets if target in self._numbers}
            self._wanted = sum(1 << number for number in numbers)

    def lines(self, service: str, call: Call, source: str) -> Iterator[str]:
        is_new = source not in self._nodes

        def is_drawn(way: Way) -> bool:
            return bool(self._new_targets(way, is_new))

        ways = self._reach.ways(call, source, is_drawn)
        ends = (end for way in ways for end in self._ends(way, is_new))
        for _, target, way in sorted(ends, key=lambda end: end[0]):
            yield from self._node(source)
            yield from self._node(target)
            if self._draws(way):
                yield from self._edge(source, target, service, way)

    def _new_targets(self, way: Way, is_new: bool) -> int:
        """The targets of a way for which there is something to draw, as bits; ``is_new`` is the source."""
        redirect = way.action.target
        if redirect is not None:
            # One place, whatever the target was.
            wanted = self._scope.targets is None or redirect.token in self._scope.targets
            return 1 << lowest(way.targets) if wanted else 0
        targets = way.targets & self._wanted
        if targets and not self._draws(way):
            return targets & self._undrawn | (1 << lowest(targets) if is_new else 0)
        return targets

    def _ends(self, way: Way, is_new: bool) -> Iterator[tuple[int, str, Way]]:
        """Where a way leads, with the number of the target that a caller names for it."""
        redirect = way.action.target
        targets = self._new_targets(way, is_new)
        while targets:
            number = lowest(targets)
            targets ^= 1 << number
            yield number, self._reach.tokens[number] if redirect is None else redirect.token, way

    def _draws(self, way: Way) -> bool:
        return self._asks or isinstance(way.action, Allow)

    def _node(self, name: str) -> Iterator[str]:
        if name in self._nodes:
            return
        self._nodes.add(name)
        if name in self._numbers:
            self._undrawn &= ~(1 << self._numbers[name])
        qube = self._world.find(name)
        if qube is None:
            yield f"  {quoted_id(name)} [style = dotted];"
        elif _COLOUR.fullmatch(qube.label):
            yield f'  {quoted_id(name)} [color = "#{qube.label[2:]}", penwidth = 3];'
        else:
            yield f"  {quoted_id(name)} [penwidth = 3];"

    def _edge(self, source: str, target: str, service: str, way: Way) -> Iterator[str]:
        label = quoted_id(_label(way, service, self._scope.labels))
        colour = "red" if isinstance(way.action, Allow) else "orange"
        line = f"  {quoted_id(source)} -> {quoted_id(target)} [label={label} color={colour}];"
        if line not in self._edges:
            self._edges.add(line)
            yield line


def called(policy: Policy) -> set[str]:
    """All that its rules speak of, as ``Scope.services`` has it: with these, what another policy has to say
    of the same calls is drawn as well."""
    found: set[str] = set()
    for service, argument, _ in _pairs(policy):
        found.update((service, service + argument) if argument.startswith("+") else (service,))
    return found


def quoted_id(text: str) -> str:
    """A text as an identifier or label, whatever it holds: it ends where it is to end, stands on one line,
    and no part of it means anything."""
    shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'


_COLOUR = re.compile(r"0x[0-9A-Fa-f]{6}")

_UNNAMED = "\0"
"""What stands for the rest of the name of a service that no rule names."""


def _calls(policy: Policy, wanted: Sequence[str]) -> Iterator[tuple[str, str, Call]]:
    """The calls that rules speak of, each with service and argument as they are written."""
    for service, argument, what in _pairs(policy):
        if not wanted or service in wanted or service + argument in wanted:
            yield service, argument, Call(_instance(service, _UNNAMED), what)
    for called in wanted:
        service, plus, argument = called.partition("+")
        yield service, plus + argument or ANY, Call(_instance(service, _UNNAMED), "+" + argument)


def _pairs(policy: Policy) -> Iterator[tuple[str, str, str | Expression]]:
    for rule in policy.rules:
        if isinstance(rule, DelegationRule):
            yield from _delegated(rule)
        else:
            yield rule.service, rule.argument, _instance(rule.argument, "") or "+"


def _delegated(rule: DelegationRule) -> Iterator[tuple[str, str, str | Expression]]:
    """Where a rule is framed, what its frame names is called as well: either may be the narrower one."""
    services: set[str] = set()
    arguments: dict[str, str | Expression] = {}
    for reach in rule.reaches():
        services |= {*reach.services.names, *(glob + ANY for glob in reach.services.globs)}
        for text in (*reach.arguments.names, *(glob + ANY for glob in reach.arguments.globs)):
            arguments[text] = _instance(text, "") or "+"
        if reach.arguments.qubes is not None:
            arguments[reach.arguments.qubes.text] = reach.arguments.qubes
    for service, (text, argument) in product(services, arguments.items()):
        yield service, text, argument


def _instance(text: str, rest: str) -> str:
    """What is called in place of a text that may end in a wildcard."""
    return text[:-1] + rest if text.endswith(ANY) else text


def _label(way: Way, service: str, labels: Labels) -> str:
    match labels:
        case Labels.NONE:
            return ""
        case Labels.SERVICE:
            return service
        case Labels.RULE:
            return f"{_called(way.rule)} {_action(way.action)}"
        case Labels.WHOLE_RULE:
            return format_rule(way.rule)


def _called(rule: AnyRule) -> str:
    if isinstance(rule, DelegationRule):
        service, argument = rule.text.split()[:2]
        return service + argument
    return rule.service + rule.argument


def _action(action: Allow | Ask) -> str:
    """The action with where it leads and as whom. Flags are left out, as in the original."""
    words = ["allow" if isinstance(action, Allow) else "ask"]
    if action.target is not None:
        words.append(f"target={action.target.token}")
    if isinstance(action, Ask) and action.default_target is not None:
        words.append(f"default_target={action.default_target.token}")
    if action.user is not None:
        words.append(f"user={action.user}")
    return " ".join(words)
