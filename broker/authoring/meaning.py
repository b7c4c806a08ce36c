"""What a change of policy means, in lines for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from broker.colour import Colours
from policy_engine import Allowance
from policy_engine.impact import Impact, Turn

MOST_LINES = 40
"""Lines that tell of calls; what is beyond is counted."""

_MIB, _GIB = 1 << 20, 1 << 30

MOST_NAMES = 6
"""Names in one list."""

_HEADS = {
    ("deny", "allow"): "may now call",
    ("deny", "ask"): "may now call, if the user agrees",
    ("ask", "allow"): "may now call without asking the user",
    ("allow", "ask"): "may now call only if the user agrees",
    ("allow", "deny"): "may no longer call",
    ("ask", "deny"): "may no longer call, nor ask the user",
}
_OTHERWISE = "may call as before, but to another place or user, or with another payload"

Calls = tuple[tuple[tuple[str, ...], int], ...]
"""Services, and as bits the targets that they all have."""


def meaning(impact: Impact, colours: Colours) -> Iterator[str]:
    """Who may now, and who may no longer, call what; and how much owners may have."""
    if not impact.turns and not impact.allowances and impact.whole:
        yield "It means the same: no call of a qube that is there is answered otherwise."
        return
    lines = list(_calls(impact, colours))
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield colours.faint(f"  ... and {len(lines) - MOST_LINES} lines more")
    for qube, before, after in impact.allowances:
        yield f"{colours.title(qube)} {_bounds(before, after)}"
    if not impact.whole:
        yield colours.odd("It speaks of more calls than were compared: there may be more of this.")


def _calls(impact: Impact, colours: Colours) -> Iterator[str]:
    groups = defaultdict[tuple[str, Calls], list[str]](list)
    for (source, head), calls in _by_source(impact.turns).items():
        groups[head, calls].append(source)
    for (head, calls), sources in groups.items():
        mark = colours.bad if "no longer" in head or "only if" in head else colours.good
        yield f"{colours.title(listed(sources))} {mark(head)}:"
        for services, targets in calls:
            names = impact.targets(targets, MOST_NAMES)
            yield f"  {listed(services)} on {listed(names, targets.bit_count())}"


def _by_source(turns: Iterable[Turn]) -> Mapping[tuple[str, str], Calls]:
    found = defaultdict[tuple[str, str], defaultdict[int, list[str]]](lambda: defaultdict(list))
    for turn in turns:
        head = _HEADS.get((turn.before, turn.after), _OTHERWISE)
        found[turn.source, head][turn.targets].append(_service(turn))
    return {
        key: tuple((tuple(services), targets) for targets, services in joined.items())
        for key, joined in found.items()
    }


def _service(turn: Turn) -> str:
    service = "any other service" if turn.service == "*" else turn.service
    return service if turn.argument == "+" else service + turn.argument


def listed(names: Sequence[str], number: int | None = None) -> str:
    """Names as a part of a sentence; ``number`` is how many there are, where these are the first."""
    number = number or len(names)
    if number > MOST_NAMES:
        return f"{', '.join(names[: MOST_NAMES - 1])} and {number - MOST_NAMES + 1} others"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _bounds(before: Allowance, after: Allowance) -> str:
    """The bounds that change, as ``!limit`` has them."""
    names = [name for name in Allowance.__slots__ if getattr(before, name) != getattr(after, name)]
    return f"may have {_amounts(names, after)}; it was {_amounts(names, before)}"


def amounts(allowance: Allowance) -> str:
    """What an owner may have, as ``!limit`` says it; what has no bound is left out."""
    return _amounts([name for name in Allowance.__slots__ if getattr(allowance, name) is not None], allowance)


def _amounts(names: Iterable[str], allowance: Allowance) -> str:
    return " ".join(f"{name}={_amount(name, allowance)}" for name in names)


def _amount(name: str, allowance: Allowance) -> str:
    bound: int | None = getattr(allowance, name)
    if bound is None:
        return "any"
    if name in ("memory", "storage"):
        return f"{bound // _MIB}MiB" if bound % _GIB else f"{bound // _GIB}GiB"
    return str(bound)
