"""A whole policy in force: its rules in order, indexed by service, then argument, then source.

Only the first level is made with the policy, so that a new one is soon in force; finer parts are made when
they are first needed. Every part is named by texts of the policy itself, so callers who send endless new
services, arguments and targets add nothing to it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from policy_engine.model import ANY, Action, Allow, Deny, Rule, Selector
from policy_engine.world import selector_key

MAX_INDEXED = 400_000
"""Rules that the finer parts of one policy's index hold, each counted as often as it is held, before they are
made anew. A policy that needs more is judged correctly, only slower."""


class Plan:
    """The rules that a request may meet once its service, argument and source are known, in order.

    Attributes:
        rules: all of them, whatever their target.
        first: for each key of a target, the position in ``rules`` of the first rule with it; no later rule
            with the same key can decide anything.
        keys: the keys of ``first``.
    """

    __slots__ = ("_effects", "_offers", "first", "keys", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self.first: dict[str, int] = {}
        for position, rule in enumerate(rules):
            self.first.setdefault(selector_key(rule.target), position)
        self.keys = frozenset(self.first)
        self._effects: list[tuple[Rule, list[str]]] | None = None
        self._offers: list[tuple[Selector, bool]] | None = None

    def effects(self) -> list[tuple[Rule, list[str]]]:
        """For ``visible``: in order, a rule, and the target keys that come to the same as its own."""
        if self._effects is None:
            self._effects = []
            # Rules for two names never speak of the same qube. So a name can join what was last said with the
            # same outcome, as long as only names stand between.
            joinable: dict[Allow | None, list[str]] = {}
            for key, position in self.first.items():
                rule = self.rules[position]
                outcome = rule.action if isinstance(rule.action, Allow) else None
                keys = joinable.get(outcome)
                named = not key.startswith(("@", "*", "uuid:"))
                if keys is None or not (named or keys is self._effects[-1][1]):
                    keys = []
                    self._effects.append((rule, keys))
                keys.append(key)
                if not named:
                    joinable.clear()
                joinable[outcome] = keys
        return self._effects

    def offers(self) -> list[tuple[Selector, bool]]:
        """For ``choices``: in order, what a rule speaks of, and whether it offers that or removes it."""
        if self._offers is None:
            offers: dict[Selector, bool] = {}
            for rule in self.rules:
                offers.setdefault(_subject(rule.action, rule.target), not isinstance(rule.action, Deny))
            self._offers = list(offers.items())
        return self._offers


def _subject(action: Action, target: Selector) -> Selector:
    return target if isinstance(action, Deny) or action.target is None else action.target


class _Group:
    """The rules for one service and argument, wildcards included, by source.

    Attributes:
        positions: in the policy, of the rules written for just this service and argument.
        wider: the groups of the wildcards that these rules share their requests with.
        sources: the keys of the sources of all these rules, none before they are needed.
        plans: by which of the sources are those of a caller, and by all the keys of callers who came before.
    """

    __slots__ = ("by_source", "plans", "positions", "sources", "wider")

    by_source: dict[str, list[int]]
    plans: dict[frozenset[str], Plan]
    sources: frozenset[str]

    def __init__(self, positions: Sequence[int], *wider: "_Group") -> None:
        self.positions = positions
        self.wider = wider
        self.forget()

    def forget(self) -> None:
        self.by_source = _NO_POSITIONS
        self.plans = _NO_PLANS
        self.sources = _NO_SOURCES

    def learn(self, rules: Sequence[Rule]) -> int:
        """Sort the rules by source, and say how many there are."""
        positions = sorted({place for group in (self, *self.wider) for place in group.positions})
        self.by_source = {}
        for place in positions:
            self.by_source.setdefault(selector_key(rules[place].source), []).append(place)
        self.plans = {}
        self.sources = frozenset(self.by_source)
        return len(positions)


# What all groups hold before they are needed; never written to.
_NO_POSITIONS: dict[str, list[int]] = {}
_NO_PLANS: dict[frozenset[str], Plan] = {}
_NO_SOURCES: frozenset[str] = frozenset()


class _Service:
    """The rules for one service by argument. Made when it is first called, its groups when they are.

    Attributes:
        groups: those of the arguments that were called, and of the wildcard.
    """

    __slots__ = ("_arguments", "_wider", "groups")

    def __init__(self, rules: Sequence[Rule], positions: Iterable[int], *wider: _Group) -> None:
        arguments = defaultdict[str, list[int]](list)
        for place in positions:
            arguments[rules[place].argument].append(place)
        self._arguments: dict[str, list[int]] = dict(arguments)
        self.groups = {ANY: _Group(arguments[ANY], *wider)}
        self._wider = (self.groups[ANY], *wider)

    def group(self, argument: str) -> _Group:
        """That of an argument which has none yet, or of the wildcard where no rule names the argument."""
        positions = self._arguments.get(argument)
        if positions is None:
            return self.groups[ANY]
        group = self.groups[argument] = _Group(positions, *self._wider)
        return group


class Policy:
    """An immutable policy. ``load`` makes it.

    Attributes:
        rules: in order of evaluation.
        files: the paths that were read, in order of their first reading.
        warnings: what the log should tell of the loading, location first.
        digest: SHA-256 in hexadecimal digits of all that was read, in order; policies with the same digest
            have the same rules. Empty for a policy that was not read from files.
    """

    __slots__ = (
        "_indexed",
        "_learned",
        "_positions",
        "_services",
        "_unnamed",
        "digest",
        "files",
        "rules",
        "warnings",
    )

    def __init__(
        self,
        rules: Iterable[Rule],
        files: Iterable[str] = (),
        warnings: Iterable[str] = (),
        digest: str = "",
    ) -> None:
        self.digest = digest
        self.rules = tuple(rules)
        self.files = tuple(files)
        self.warnings = tuple(warnings)
        positions = defaultdict[str, list[int]](list)
        for place, rule in enumerate(self.rules):
            positions[rule.service].append(place)
        self._positions: dict[str, list[int]] = dict(positions)
        self._unnamed = _Service(self.rules, positions[ANY])
        self._services = {ANY: self._unnamed}
        self._learned: list[_Group] = []
        self._indexed = 0

    def plan(self, service: str, argument: str, source: frozenset[str]) -> Plan:
        """The rules for this service and argument and a source with these keys."""
        known = self._services.get(service) or self._service(service)
        group = known.groups.get(argument) or known.group(argument)
        return group.plans.get(source) or self._plan(group, source)

    def _service(self, service: str) -> _Service:
        """A service that was not called yet, or what stands for all that no rule names."""
        positions = self._positions.get(service)
        if positions is None:
            return self._unnamed
        everything = self._unnamed.groups[ANY]
        known = self._services[service] = _Service(self.rules, positions, everything)
        return known

    def _plan(self, group: _Group, source: frozenset[str]) -> Plan:
        if self._indexed > MAX_INDEXED:
            for learned in self._learned:
                learned.forget()
            self._learned.clear()
            self._indexed = 0
        if group.plans is _NO_PLANS:
            self._indexed += group.learn(self.rules) + 1
            self._learned.append(group)
        sources = group.sources & source
        plan = group.plans.get(sources)
        if plan is None:
            positions = sorted(place for key in sources for place in group.by_source[key])
            self._indexed += len(positions) + 1
            plan = group.plans[sources] = Plan([self.rules[place] for place in positions])
        # A caller's own set of keys is the one that is asked for again, and its hash is known already.
        group.plans[source] = plan
        self._indexed += 1
        return plan
