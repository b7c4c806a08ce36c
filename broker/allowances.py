"""What the policy asks of the core: how much each owner may have, and which names new qubes may not get (the
delegation dialect)."""

from __future__ import annotations

from broker.facts import Facts
from broker.judge import PolicyInForce
from policy_engine import allowance
from qubesd.core.budgets import UNLIMITED, Allowance
from qubesd.model.state import Qube


def is_kept(policies: PolicyInForce, facts: Facts, name: str) -> bool:
    """Whether the policy, or a tag that it could match, still speaks of a qube by this name."""
    policy = policies.last
    return policy is not None and policy.delegates and policy.authority.refers_to(name, facts.world())


def allowance_of(policies: PolicyInForce, facts: Facts, owner: Qube | None) -> Allowance:
    """What this owner may use by the policy in force, or by the last that loaded: while none does, nobody but
    dom0 acts, and its limits are still those. An owner that is gone has none.
    """
    policy = policies.last
    if policy is None or owner is None:
        return UNLIMITED
    found = allowance(policy, owner.name, facts.world())
    return Allowance(found.qubes, found.running, found.memory, found.storage)
