"""The policy in force, and what it says to one call.

A policy that does not load denies every judged call; the reason is in the log and in each audit record. One
``Ground`` holds the policy and the world that a call is judged by, and everything that follows from the call
(its action, the rows of its answer) is judged on the same ground.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from policy_engine import (
    Allowed,
    AnyRule,
    Asked,
    DelegationRule,
    Denied,
    Particulars,
    Policy,
    PolicyError,
    Request,
    World,
    confirm,
    decide,
    visible,
)
from qubesd.model.state import DOM0

_log = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """What the policy said of a call, in the words of the audit."""

    allowed: bool
    decision: str
    reason: str = ""
    rule: AnyRule | None = None
    answer: Allowed | Asked | None = None
    """What the engine said, where it was no denial."""

    @property
    def delegated(self) -> bool:
        """Whether a rule of the delegation dialect spoke."""
        return isinstance(self.rule, DelegationRule)

    @property
    def asked(self) -> Asked | None:
        """What the user has to say yes to before the call is carried out; ``None`` for nothing."""
        return self.answer if isinstance(self.answer, Asked) else None

    def refused(self, reason: str) -> Verdict:
        """The denial that this comes to after all."""
        return Verdict(False, "deny", reason, self.rule)

    def settled(self, agreed: bool, reason: str) -> Verdict:
        """What a question comes to; the reason says how that is known."""
        return self._replace(reason=reason) if agreed else Verdict(False, "ask", reason, self.rule)

    @property
    def place(self) -> str:
        """``FILE:LINE`` of the deciding rule, or of what keeps the policy from loading; empty for none."""
        if self.rule is None:
            return ""
        return self.rule.file if self.rule.line is None else f"{self.rule.file}:{self.rule.line}"


UNJUDGED = Verdict(True, "unjudged")
"""dom0's own calls."""


class Ground(NamedTuple):
    """A policy and a world, and the caller that is judged by them. ``policy`` is what keeps it from loading
    where there is none."""

    policy: Policy | PolicyError
    world: World
    source: str

    def allows(self, service: str, argument: str, target: str) -> bool:
        """Whether a plain ``allow`` stands for this call; ``argument`` is without the ``+``.

        Stock's lists count an ``allow`` that goes elsewhere than dom0 as well, and so does this.
        """
        if isinstance(self.policy, PolicyError):
            return False
        request = Request(service, "+" + argument, self.source, target)
        return isinstance(decide(self.policy, request, self.world), Allowed)

    def allowed_on(self, service: str, argument: str = "") -> list[str]:
        """The names of the qubes on which the call is allowed, in the order of lists."""
        if isinstance(self.policy, PolicyError):
            return []
        return visible(self.policy, self.world, self.source, service, "+" + argument)

    def confers_nothing(self, tag: str) -> bool:
        """Whether no rule builds on the tag, so that it can come with a template."""
        return isinstance(self.policy, Policy) and not self.policy.authority.confers(f"@tag:{tag}")

    def judge(self, service: str, argument: str, target: str) -> Verdict:
        """What the policy says to a call of the Admin API, which dom0 carries out whatever it is about."""
        if isinstance(self.policy, PolicyError):
            return Verdict(False, "deny", f"the policy does not load: {self.policy}")
        decision = decide(self.policy, Request(service, "+" + argument, self.source, target), self.world)
        if isinstance(decision, Allowed):
            if decision.target != DOM0:
                hint = f"allowed, but sent to {decision.target!r} and not to dom0; the rule lacks target=dom0"
                return Verdict(False, "deny", hint, decision.rule)
            return Verdict(True, "allow", "", decision.rule, decision)
        if isinstance(decision, Asked):
            if DOM0 in (decision.served_by, *decision.targets):
                return Verdict(True, "ask", "", decision.rule, decision)
            return Verdict(False, "ask", "dom0 is not among the choices", decision.rule)
        return _denied(decision)

    def confirm(
        self, verdict: Verdict, service: str, argument: str, target: str, about: Particulars
    ) -> Verdict:
        """The verdict as it stands when all is known of the call: the same one, or a denial."""
        if verdict.answer is None or isinstance(self.policy, PolicyError):
            return verdict
        request = Request(service, "+" + argument, self.source, target)
        confirmed = confirm(self.policy, verdict.answer, request, about, self.world)
        return verdict.refused(confirmed.kind) if isinstance(confirmed, Denied) else verdict


def _denied(decision: Denied) -> Verdict:
    return Verdict(False, "deny", decision.kind, decision.rule)


class PolicyInForce:
    """The one policy of this moment; a new one takes its place whole, by one assignment.

    Args:
        load: reads the policy from its directories; raises ``PolicyError``.
        keep_last_good: go on with the policy before where the new one does not load.
    """

    def __init__(self, load: Callable[[], Policy], keep_last_good: bool) -> None:
        self.readings = {"ok": 0, "failed": 0}
        """Readings of the files, by whether they loaded."""
        self._load = load
        self._keep_last_good = keep_last_good
        self.error: PolicyError | None = None
        """What keeps the files from being in force as they are now."""
        self.now: Policy | PolicyError = PolicyError("io", "not loaded yet", file="policy.d")
        self.last: Policy | None = None
        """The last one that loaded."""
        self.since = time.time()
        """When ``now`` came into force, in seconds of the epoch."""

    def read(self) -> Policy | PolicyError:
        """The policy as its files are now, or what is wrong with them; puts nothing in force.

        It is the very policy in force where nothing that counts has changed.
        """
        try:
            policy = self._load()
        except PolicyError as error:
            return error
        except Exception:
            # Whatever it was, what may be old must not stay in force because of it.
            _log.exception("reading the policy broke off")
            return PolicyError("io", "reading it broke off, see the log", file="policy.d")
        now = self.now
        return now if isinstance(now, Policy) and now.digest and now.digest == policy.digest else policy

    def put(self, policy: Policy | PolicyError) -> None:
        """Decide by this from now on; what is wrong with it is in the log and in ``error``."""
        if isinstance(policy, PolicyError):
            self.readings["failed"] += 1
            self._put_error(policy)
            return
        self.readings["ok"] += 1
        recovered, self.error = self.error is not None, None
        if policy is self.now and not recovered:
            return
        if policy is not self.now:
            self.now = self.last = policy
            self.since = time.time()
        for warning in policy.warnings:
            _log.warning("%s", warning)
        _log.info("policy loaded: %d rules in %d files", len(policy.rules), len(policy.files))

    def _put_error(self, error: PolicyError) -> None:
        known, self.error = self.error, error
        keep = self._keep_last_good and isinstance(self.now, Policy)
        if not keep:
            self.now = error
        if str(known) == str(error):
            return
        if keep:
            _log.error("%s; going on with the policy before", error)
        else:
            self.since = time.time()
            _log.error("%s; every judged call is denied until the policy loads", error)

    def reload(self) -> None:
        """Read the policy again, and wait for it."""
        self.put(self.read())
