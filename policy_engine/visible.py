"""Which qubes a caller may reach with one call: ``decide`` for all of them at once, on sets of qubes."""

from policy_engine.decide import resolve, source_keys
from policy_engine.decision import Allowed
from policy_engine.model import Allow
from policy_engine.policy import Policy
from policy_engine.world import RUNNING, World


def visible(policy: Policy, world: World, source: str, service: str, argument: str = "+") -> list[str]:
    """The names of all qubes for which ``decide`` says Allowed when they are the target, in world order.

    An ``ask`` counts as no. Costs a step for each run of rules that can match, whatever the number of qubes.
    """
    caller = world.residents.get(source)
    plan = policy.plan(service, argument, source_keys(source) if caller is None else caller.keys)
    undecided = world.matching(("*",))
    granted = 0
    for rule, keys in plan.effects():
        matched = world.matching(keys) & undecided
        if not matched:
            continue
        undecided ^= matched
        allow = rule.action
        if isinstance(allow, Allow):
            if allow.target is not None:
                # A redirected call ends in one place, wherever it was going.
                elsewhere = isinstance(resolve(rule, allow, "@default", source, world), Allowed)
                granted |= matched if elsewhere else 0
            elif allow.autostart:
                granted |= matched
            else:
                granted |= matched & world.matching((RUNNING, "@adminvm"))
        if not undecided:
            break
    return world.selected(granted)
