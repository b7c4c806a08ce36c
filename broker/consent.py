"""What users have said yes to: one use for each yes, by the very call that was asked about
(``design/delegation-dialect.md``, "Ask").

A yes is for a wish: who calls, what it is about and whatever else it touches, by uuid, with the service, the
argument and the payload. It counts while the policy is the same and the same rule asks, for a minute, and for
one call; with ``remember=``, for all calls of this wish in that time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from policy_engine import AnyRule, DelegationRule, Policy, PolicyError

LIFETIME = 60.0
"""Seconds in which a yes has to be used."""

MAX_KEPT = 64
"""Yeses of one caller that are kept; the oldest give way, and are asked for again."""


InForce = Policy | PolicyError
"""What is in force: a policy, or what keeps it from loading, by which nobody said yes to anything."""


class Wish(NamedTuple):
    """One call, as far as a yes to it depends on it.

    Attributes:
        caller, target: the uuids.
        argument: without the ``+``.
        digest: of the payload.
        touched: name and uuid of each qube that it touches besides; an empty uuid where there is none.
    """

    caller: str
    target: str
    service: str
    argument: str
    digest: bytes
    touched: tuple[tuple[str, str], ...] = ()


def digest_of(payload: bytes) -> bytes:
    """What stands for a payload in a wish."""
    return sha256(payload).digest()


@dataclass(slots=True)
class Consent:
    """One yes: to which wish, by which rule of which policy, until when, and whether for one call or for all
    until then; ``used`` is whether one was carried out on it."""

    wish: Wish
    policy: InForce
    rule: AnyRule
    until: float
    remembered: bool
    used: bool = False


class Consents:
    """All yeses that still count. ``clock`` tells seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, OrderedDict[int, Consent]] = {}
        self._given = 0

    def give(self, wish: Wish, policy: InForce, rule: AnyRule) -> int:
        """Take down that the user said yes to this wish, by the rule that asked; its number."""
        remember = rule.remember if isinstance(rule, DelegationRule) else None
        lifetime = LIFETIME if remember is None else remember
        self._sweep()
        kept = self._kept.setdefault(wish.caller, OrderedDict())
        self._given += 1
        kept[self._given] = Consent(wish, policy, rule, self._clock() + lifetime, remember is not None)
        if len(kept) > MAX_KEPT:
            kept.popitem(last=False)
        return self._given

    def covers(self, wish: Wish, policy: InForce, rule: AnyRule) -> bool:
        """Whether the user need not be asked, since an earlier yes is remembered."""
        number = self._find(wish, policy, rule)
        return number is not None and self._kept[wish.caller][number].remembered

    def use(self, wish: Wish, policy: InForce, rule: AnyRule) -> bool:
        """Whether there is a yes for this call; one that is for a single call is used up."""
        number = self._find(wish, policy, rule)
        if number is None:
            return False
        one = self._kept[wish.caller][number]
        one.used = True
        if not one.remembered:
            del self._kept[wish.caller][number]
        return True

    def withdraw(self, wish: Wish, number: int) -> None:
        """Let this yes to the wish, if it was not used at once, not be used any more."""
        kept = self._kept.get(wish.caller, OrderedDict())
        if number in kept and not kept[number].used:
            del kept[number]

    def _find(self, wish: Wish, policy: InForce, rule: AnyRule) -> int | None:
        """Its number; those that no longer count are dropped on the way."""
        kept = self._kept.get(wish.caller)
        if kept is None:
            return None
        now = self._clock()
        for number in [
            number for number, one in kept.items() if one.until <= now or one.policy is not policy
        ]:
            del kept[number]
        # The latest first: it is the one that was given for the call that is being carried out.
        for number, one in reversed(kept.items()):
            if one.wish == wish and one.rule == rule:
                return number
        return None

    def _sweep(self) -> None:
        """Forget the callers whose yeses are all old."""
        now = self._clock()
        self._kept = {
            caller: kept
            for caller, kept in self._kept.items()
            if any(one.until > now for one in kept.values())
        }
