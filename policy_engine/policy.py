"""A whole policy in force: its rules in order, indexed by service, then argument, then source.

Only the first level is made with the policy, so that a new one is soon in force; finer parts are made when
they are first needed. Every part is named by texts of the policy itself, so callers who send endless new
services, arguments and targets add nothing to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence

from policy_engine.authority import Authority
from policy_engine.catalogue import GUARDED, Catalogue, guard_of
from policy_engine.delegation import AnyRule, DelegationRule, Limit
from policy_engine.errors import ClosedFrame
from policy_engine.model import ANY, Deny
from policy_engine.plan import Plan, speaks_of
from policy_engine.world import selector_key

MAX_INDEXED = 400_000
"""Rules that the finer parts of one policy's index hold, each counted as often as it is held, before all of
them are made anew. A policy that needs more is judged correctly, only slower."""

MAX_CALLERS = 1_000
"""Callers whose rules are remembered as such."""


class _Group:
    """The rules for one service and argument, wildcards included, by source.

    Attributes:
        positions: in the policy, of the rules written for just this service and argument.
        wider: the groups of the wildcards that these rules share their requests with.
        sources: the keys of the sources of all these rules, none before they are needed.
        plans: by which of the sources are those of a caller, and by all the keys of callers who came before.
        own: whether each caller has a plan of its own, since rules of the dialect are among them.
    """

    __slots__ = ("by_source", "own", "plans", "positions", "sources", "wider")

    by_source: dict[str, list[int]]
    plans: dict[frozenset[str], Plan]
    sources: frozenset[str]
    own: bool

    def __init__(self, positions: Sequence[int], *wider: _Group) -> None:
        self.positions = positions
        self.wider = wider
        self.by_source = _NO_POSITIONS
        self.plans = _NO_PLANS
        self.sources = _NO_SOURCES
        self.own = False

    def learn(self, rules: Sequence[AnyRule]) -> int:
        """Sort the rules by source, and say how many there are."""
        positions = sorted({place for group in (self, *self.wider) for place in group.positions})
        self.by_source = {}
        self.own = False
        for place in positions:
            rule = rules[place]
            if isinstance(rule, DelegationRule):
                self.own = True
                for key in rule.reach.source.anchors():
                    self.by_source.setdefault(key, []).append(place)
            else:
                self.by_source.setdefault(selector_key(rule.source), []).append(place)
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
        size: how many rules there are for the service, wildcards left aside.
    """

    __slots__ = ("_arguments", "_broad", "_globs", "_rules", "_wider", "groups", "size")

    def __init__(self, rules: Sequence[AnyRule], positions: Sequence[int], *wider: _Group) -> None:
        self.size = len(positions)
        arguments = defaultdict[str, list[int]](list)
        self._rules = rules
        self._broad: list[int] = []
        globs: set[str] = set()
        for place in positions:
            rule = rules[place]
            if not isinstance(rule, DelegationRule):
                arguments[rule.argument].append(place)
                continue
            self._broad.append(place)
            for reach in rule.reaches():
                globs.update(glob for glob in reach.arguments.globs if glob)
                for name in reach.arguments.names:
                    arguments[name] += ()
        self._arguments: dict[str, list[int]] = dict(arguments)
        self._globs = _Globs(globs)
        self.groups: dict[str, _Group] = {}
        self._wider = wider
        everything = self.group(ANY)
        self._wider = (everything, *wider)

    def group(self, argument: str) -> _Group:
        """That of an argument which has none yet, or of what stands for all arguments that the same rules
        cover."""
        known = argument if argument in self._arguments else self._globs.longest(argument)
        group = self.groups.get(known)
        if group is None:
            broad = [place for place in self._broad if self._covers(place, known, argument)]
            positions = sorted((*self._arguments.get(known, ()), *broad))
            group = self.groups[known] = _Group(positions, *self._wider)
        return group

    def _covers(self, place: int, known: str, argument: str) -> bool:
        rule = self._rules[place]
        assert isinstance(rule, DelegationRule)
        return rule.covers_argument("//" if known == ANY else argument)


class _Globs:
    """Globs, told by what stands before their ``*``."""

    __slots__ = ("_heads", "_lengths")

    def __init__(self, heads: Iterable[str]) -> None:
        self._heads = frozenset(heads)
        self._lengths = sorted({len(head) for head in self._heads}, reverse=True)

    def longest(self, text: str) -> str:
        """The longest of them that covers the text: it tells all others that do. ``*`` where none does."""
        for length in self._lengths:
            head = text[:length]
            if head in self._heads:
                return head + ANY
        return ANY


class Policy:
    """An immutable policy. ``load`` makes it.

    Attributes:
        rules: in order of evaluation.
        files: the paths that were read, in order of their first reading.
        warnings: what the log should tell of the loading, location first; of closed frames as well.
        closed: the frames that are closed.
        digest: SHA-256 in hexadecimal digits of all that was read, in order; policies with the same digest
            have the same rules. Empty for a policy that was not read from files.
        catalogue: the Admin API that rules of the dialect speak of; ``None`` where there are none.
        served: the calls of that catalogue, which dom0 carries out.
        limits: those of the dialect, in order.
        authority: what the rules build on, found out when it is first asked for.
    """

    __slots__ = (
        "_authority",
        "_by_glob",
        "_globs_for",
        "_granting",
        "_indexed",
        "_others",
        "_positions",
        "_services",
        "_unnamed",
        "catalogue",
        "closed",
        "digest",
        "files",
        "limits",
        "rules",
        "served",
        "warnings",
    )

    def __init__(
        self,
        rules: Iterable[AnyRule],
        files: Iterable[str] = (),
        warnings: Iterable[str] = (),
        digest: str = "",
        catalogue: Catalogue | None = None,
        limits: Iterable[Limit] = (),
        closed: Iterable[ClosedFrame] = (),
    ) -> None:
        self.digest = digest
        self.rules = tuple(rules)
        self.files = tuple(files)
        self.closed = tuple(closed)
        self.warnings = (*warnings, *map(str, self.closed))
        self.catalogue = catalogue
        self.served: Container[str] = () if catalogue is None else catalogue.entries
        self.limits = tuple(limits)
        positions = defaultdict[str, list[int]](list)
        globs: set[str] = set()
        self._by_glob: list[int] = []
        for place, rule in enumerate(self.rules):
            if isinstance(rule, DelegationRule):
                for name in rule.reach.services.names:
                    positions[name].append(place)
                if rule.reach.services.globs:
                    self._by_glob.append(place)
                # Names and globs of a frame part services from each other as well.
                for reach in rule.reaches():
                    globs.update(reach.services.globs)
                    for name in reach.services.names:
                        positions[name] += ()
            else:
                positions[rule.service].append(place)
        self._positions: dict[str, list[int]] = dict(positions)
        self._globs_for = {
            guard: _Globs(glob for glob in globs if glob.startswith(guard)) for guard in ("", *GUARDED)
        }
        self._authority: Authority | None = None
        self._granting: dict[frozenset[str], list[AnyRule]] = {}
        self._begin()

    def _begin(self) -> None:
        """With an index of which nothing but the first level is made."""
        # By the names of services that the policy names, and by the guard and the longest glob of all others.
        self._services: dict[str, _Service] = {}
        self._others: dict[tuple[str, str], _Service] = {}
        self._unnamed = _Service(self.rules, self._positions.get(ANY, ()))
        self._indexed = 0

    def plan(self, service: str, argument: str, source: frozenset[str], name: str = "") -> Plan:
        """The rules for this service and argument and a source with these keys.

        Args:
            name: of the source as a qube; empty if it is none.
        """
        known = self._services.get(service) or self._service(service)
        group = known.groups.get(argument) or self._group(known, argument)
        return group.plans.get(source) or self._plan(group, source, name)

    @property
    def delegates(self) -> bool:
        """Whether a rule of it is in the dialect."""
        return self.catalogue is not None

    @property
    def authority(self) -> Authority:
        if self._authority is None:
            self._authority = Authority.of(self.rules, self.limits)
        return self._authority

    def granting(self, source: frozenset[str], name: str) -> list[AnyRule]:
        """The rules that allow or ask a source with these keys something, whatever it is and on what."""
        found = self._granting.get(source)
        if found is None:
            if len(self._granting) >= MAX_CALLERS:
                self._granting.clear()
            found = [
                rule
                for rule in self.rules
                if not isinstance(rule.action, Deny) and speaks_of(rule, source, name)
            ]
            self._granting[source] = found
        return found

    def _service(self, service: str) -> _Service:
        """A service that was not called yet, or what stands for all that the same rules cover."""
        positions = self._positions.get(service)
        if positions is not None:
            made = self._services[service] = self._covering(service, positions)
            return made
        if not self._by_glob:
            return self._unnamed
        # Which globs cover a service of the Admin API is another question than for all others.
        guard = guard_of(service)
        others = guard, self._globs_for[guard].longest(service)
        known = self._others.get(others)
        if known is None:
            known = self._others[others] = self._covering(service, ())
        return known

    def _covering(self, service: str, named: Sequence[int]) -> _Service:
        positions = {
            place
            for place in {*named, *self._by_glob}
            if not isinstance(rule := self.rules[place], DelegationRule) or rule.covers_service(service)
        }
        made = _Service(self.rules, sorted(positions), self._unnamed.groups[ANY])
        self._indexed += made.size + 1
        return made

    def _group(self, service: _Service, argument: str) -> _Group:
        before = len(service.groups)
        group = service.group(argument)
        if len(service.groups) > before:
            self._indexed += len(group.positions) + 1
        return group

    def _plan(self, group: _Group, source: frozenset[str], name: str) -> Plan:
        if group.plans is _NO_PLANS:
            self._indexed += group.learn(self.rules) + 1
        sources = group.sources & source
        plan = None if group.own else group.plans.get(sources)
        if plan is None:
            positions = sorted({place for key in sources for place in group.by_source[key]})
            plan = Plan([self.rules[place] for place in positions], source, name)
            self._indexed += len(positions) + 1
            if not group.own:
                group.plans[sources] = plan
        # A caller's own set of keys is the one that is asked for again, and its hash is known already.
        group.plans[source] = plan
        self._indexed += 1
        if self._indexed > MAX_INDEXED:
            self._begin()
        return plan
