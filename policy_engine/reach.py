"""Where a call can lead from one source: ``decide`` for every target at once, and not for qubes alone.

Sets of targets are bits of one integer, bit N standing for ``tokens[N]``: the qubes in world order,
``@dispvm``, ``@dispvm:NAME`` for each template of disposables, ``@default``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from policy_engine.decide import decide
from policy_engine.decision import Denied, Request
from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.expression import Expression
from policy_engine.model import Allow, Ask, Deny
from policy_engine.plan import Plan
from policy_engine.policy import Policy
from policy_engine.targets import NO_KEYS, argument_keys, caller_name, frame_keys, source_keys, target_keys
from policy_engine.world import DISPOSABLE_BASES, RUNNING, World


@dataclass(frozen=True, slots=True)
class Call:
    """What is called, with an argument or with one that names a qube of which the expression speaks."""

    service: str
    argument: str | Expression


@dataclass(frozen=True, slots=True)
class Way:
    """What one rule allows or asks: its action, and the targets for which it decides so, as bits."""

    rule: AnyRule
    action: Allow | Ask
    targets: int


class Reach:
    """What a policy lets happen in a world. It remembers what sources have in common.

    Attributes:
        tokens: all targets that a caller can name there, texts of one qube counted once.
    """

    def __init__(self, policy: Policy, world: World) -> None:
        self._policy = policy
        self._world = world
        bases = world.selected(world.matching((DISPOSABLE_BASES,)))
        others = (*(f"@dispvm:{base}" for base in bases), "@default")
        self.tokens = (*world.names, "@dispvm", *others)
        self._dispvm = 1 << len(world)
        self._keys = {
            number: (target_keys(token, "", world), frame_keys(token, "", world))
            for number, token in enumerate(others, len(world) + 1)
        }
        self._call: Call | None = None
        self._settled: dict[tuple[Plan, frozenset[str]], list[tuple[int, int]]] = {}

    def ways(self, call: Call, source: str, matters: Callable[[Way], bool]) -> list[Way]:
        """In no order, all that the source can do with the call; what is denied is left out.

        Args:
            matters: told of what may be possible; where it says no, that is left out unexamined.
        """
        world = self._world
        caller = world.resident(source)
        argument = self._argument(call, source)
        if argument is None:
            return []
        keys = source_keys(source) if caller is None else caller.keys
        plan = self._policy.plan(call.service, argument, keys, caller_name(source, world))
        if not plan.keys:
            return []
        about = (
            argument_keys(self._policy, call.service, argument, world) if plan.judges_arguments else NO_KEYS
        )
        own = self._settles_disposable(plan, source, about)
        ways = []
        for position, bits in self._settled_by(plan, about, call):
            rule, targets = plan.rules[position], bits | self._dispvm if position == own else bits
            if not targets or isinstance(rule.action, Deny):
                continue
            way = Way(rule, rule.action, targets)
            if matters(way):
                request = Request(call.service, argument, source, self.tokens[lowest(targets)])
                granted = self._granted(way, request)
                if granted:
                    ways.append(Way(rule, rule.action, granted))
        return ways

    def _settled_by(self, plan: Plan, about: frozenset[str], call: Call) -> list[tuple[int, int]]:
        """As ``_settles``, which is the same for all sources that have the plan."""
        if call is not self._call:
            self._call = call
            self._settled.clear()
        settled = self._settled.get((plan, about))
        if settled is None:
            settled = self._settled[plan, about] = list(self._settles(plan, about))
        return settled

    def _argument(self, call: Call, source: str) -> str | None:
        """The call's argument: of those that name a qube the first; ``None`` where there is none."""
        if isinstance(call.argument, str):
            return call.argument
        qubes = call.argument.bound(caller_name(source, self._world)).bits(self._world)
        return f"+{self.tokens[lowest(qubes)]}" if qubes else None

    def _settles(self, plan: Plan, about: frozenset[str]) -> Iterator[tuple[int, int]]:
        """The position of each rule with the targets for which it decides, ``@dispvm`` left aside: that
        depends on who calls."""
        others: dict[int, int] = {}
        for number, (keys, framed) in self._keys.items():
            position = plan.earliest(plan.keys & keys, keys, framed, about)
            if position is not None:
                others[position] = others.get(position, 0) | 1 << number
        undecided = self._dispvm - 1
        for position, effect in plan.each():
            matched = effect.bits(self._world, about) & undecided
            undecided ^= matched
            yield position, matched | others.get(position, 0)

    def _settles_disposable(self, plan: Plan, source: str, about: frozenset[str]) -> int | None:
        """The position of the rule that decides on ``@dispvm``."""
        keys = target_keys("@dispvm", source, self._world)
        matching = plan.keys & keys
        if not matching:
            return None
        return plan.earliest(matching, keys, frame_keys("@dispvm", source, self._world), about)

    def _granted(self, way: Way, request: Request) -> int:
        """Those of the targets for which the rule does allow or ask."""
        rule, action, targets = way.rule, way.action, way.targets
        served = isinstance(rule, DelegationRule) and request.service in self._policy.served
        if isinstance(action, Ask) and served:
            # The one choice is the qube that the call is about.
            return targets & self._dispvm - 1
        if isinstance(action, Ask) or action.target is not None:
            # What it comes to is the same for all: where it leads, or what there is to choose from.
            denied = isinstance(decide(self._policy, request, self._world), Denied)
            return 0 if denied else targets
        if served:
            return targets
        if not action.autostart:
            return targets & self._world.matching((RUNNING, "@adminvm"))
        gone = 1 << len(self.tokens) - 1
        if self._world.disposable_base(request.source) is None:
            gone |= self._dispvm
        return targets & ~gone


def lowest(bits: int) -> int:
    """The number of the lowest bit that is set; there must be one."""
    return (bits & -bits).bit_length() - 1
