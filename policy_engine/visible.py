"""Which qubes a caller may reach with one call: ``decide`` for all of them at once, on sets of qubes."""

from policy_engine.decision import Allowed
from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.model import Allow
from policy_engine.policy import Policy
from policy_engine.resolve import delegated, resolve
from policy_engine.targets import NO_KEYS, argument_keys, source_keys
from policy_engine.world import RUNNING, World


def visible(policy: Policy, world: World, source: str, service: str, argument: str = "+") -> list[str]:
    """The names of all qubes for which ``decide`` says Allowed when they are the target, in world order.

    An ``ask`` counts as no. Costs a step for each run of rules that can match, whatever the number of qubes.
    """
    caller = world.resident(source)
    if caller is None:
        plan = policy.plan(service, argument, source_keys(source), "")
    else:
        plan = policy.plan(service, argument, caller.keys, caller.facts.name)
    about = argument_keys(policy, service, argument, world) if plan.judges_arguments else NO_KEYS
    served = service in policy.served
    undecided = world.matching(("*",))
    granted = 0
    for effect in plan.effects():
        matched = effect.bits(world, about) & undecided
        if not matched:
            continue
        undecided ^= matched
        allow = effect.rule.action
        if not isinstance(allow, Allow):
            continue
        if served and isinstance(effect.rule, DelegationRule):
            granted |= matched
        elif allow.target is not None:
            # A redirected call ends in one place, wherever it was going.
            granted |= matched if _leads_somewhere(policy, effect.rule, allow, service, source, world) else 0
        elif allow.autostart:
            granted |= matched
        else:
            granted |= matched & world.matching((RUNNING, "@adminvm"))
        if not undecided:
            break
    return world.selected(granted)


def _leads_somewhere(
    policy: Policy, rule: AnyRule, allow: Allow, service: str, source: str, world: World
) -> bool:
    if isinstance(rule, DelegationRule):
        return isinstance(delegated(policy, rule, allow, service, "@default", source, world), Allowed)
    return isinstance(resolve(rule, allow, "@default", source, world), Allowed)
