"""A policy's answer to a request: a pure, total function of the policy, the request and the world.

The steps are those of sections 5 to 7 of the policy language.
"""

from policy_engine.choices import choices, choices_in_dialect, preselected, subject
from policy_engine.decision import Asked, Decision, Denied, Request
from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.model import DOM0, Allow, Ask, Deny
from policy_engine.policy import Policy
from policy_engine.resolve import delegated, resolve
from policy_engine.targets import NO_KEYS, argument_keys, frame_keys, prepare, source_keys, target_keys
from policy_engine.world import World

_NO_RULE = Denied("no-rule", True)


def decide(policy: Policy, request: Request, world: World) -> Decision:
    """What the policy says to the request in this world. Never raises, asks nobody, changes nothing."""
    service, argument, source, target, requested_source = request
    resident = world.resident(target)
    if resident is None:
        prepared = prepare(target, world)
        if isinstance(prepared, Denied):
            return prepared
        target = prepared
    if requested_source:
        refusal = _refuse_source(requested_source, source, world)
        if refusal is not None:
            return refusal
        source = requested_source
    caller = world.resident(source)
    keys = target_keys(target, source, world) if resident is None else resident.keys

    if caller is None:
        plan = policy.plan(service, argument, source_keys(source), "")
    else:
        plan = policy.plan(service, argument, caller.keys, caller.facts.name)
    matching = plan.keys & keys
    if not matching:
        return _NO_RULE
    if plan.cases:
        framed = keys if resident is not None else frame_keys(target, source, world)
        about = argument_keys(policy, service, argument, world) if plan.judges_arguments else NO_KEYS
        position = plan.earliest(matching, keys, framed, about)
        if position is None:
            return _NO_RULE
    elif len(matching) == 1:
        (key,) = matching
        position = plan.first[key]
    else:
        position = min(map(plan.first.__getitem__, matching))
    rule = plan.rules[position]

    action = rule.action
    if isinstance(action, Allow):
        if isinstance(rule, DelegationRule):
            return delegated(policy, rule, action, service, target, source, world)
        return resolve(rule, action, target, source, world)
    if isinstance(action, Deny):
        return Denied("rule", action.notify, rule)
    if not isinstance(rule, DelegationRule):
        return _ask(rule, action, choices(plan, action, source, world), target, source, world)
    if service in policy.served:
        return _ask(rule, action, subject(target, world), target, source, world, DOM0)
    return _ask(rule, action, choices_in_dialect(rule, action, plan, source, world), target, source, world)


def _refuse_source(requested: str, caller: str, world: World) -> Denied | None:
    remote = world.find(requested)
    if remote is None:
        return Denied("requested-source-unknown", True)
    if remote.klass != "RemoteVM":
        return Denied("requested-source-not-remote", True)
    if remote.relayvm != caller:
        return Denied("requested-source-not-relay", True)
    return None


def _ask(
    rule: AnyRule,
    ask: Ask,
    targets: tuple[str, ...],
    target: str,
    source: str,
    world: World,
    served_by: str | None = None,
) -> Asked | Denied:
    """The question that a rule puts (section 7.3)."""
    if not targets:
        return Denied("nothing-to-ask", True, rule)
    default = preselected(ask, targets, source, world)
    return Asked(targets, default, target, source, ask.user, ask.autostart, ask.notify, rule, served_by)
