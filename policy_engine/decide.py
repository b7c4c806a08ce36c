"""A policy's answer to a request: a pure, total function of the policy, the request and the world.

The steps are those of sections 5 to 7 of the policy language.
"""

from policy_engine.choices import choices, is_running, preselected
from policy_engine.decision import Allowed, Asked, Decision, Denied, Request
from policy_engine.model import DOM0, DOM0_TEXTS, Allow, Ask, Deny, Rule
from policy_engine.policy import Plan, Policy
from policy_engine.world import World, disposable_keys, disposable_tag_keys

_NO_RULE = Denied("no-rule", True)

_DOM0_KEYS = frozenset({"*", "@adminvm"})
_NO_TARGET_KEYS = frozenset({"*", "@anyvm", "@default"})
_NO_QUBE_KEYS = frozenset({"*", "@anyvm"})


def decide(policy: Policy, request: Request, world: World) -> Decision:
    """What the policy says to the request in this world. Never raises, asks nobody, changes nothing."""
    service, argument, source, target, requested_source = request
    residents = world.residents
    resident = residents.get(target)
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
    caller = residents.get(source)
    keys = target_keys(target, source, world) if resident is None else resident.keys

    plan = policy.plan(service, argument, source_keys(source) if caller is None else caller.keys)
    matching = plan.keys & keys
    if not matching:
        return _NO_RULE
    if len(matching) == 1:
        (key,) = matching
        rule = plan.rules[plan.first[key]]
    else:
        rule = plan.rules[min(map(plan.first.__getitem__, matching))]

    action = rule.action
    if isinstance(action, Allow):
        return resolve(rule, action, target, source, world)
    if isinstance(action, Deny):
        return Denied("rule", action.notify, rule)
    return _ask(rule, action, plan, target, source, world)


def prepare(target: str, world: World) -> str | Denied:
    """The caller's target after checking: empty and unknown qubes are ``@default``."""
    if target in world.residents or target == DOM0:
        return target
    if target[:1] != "@":
        return "@default" if target != "*" else Denied("bad-target", False)
    if target in ("@adminvm", "@default", "@dispvm"):
        return target
    base = target.removeprefix("@dispvm:")
    if base in ("", target) or base[0] == "@":
        return Denied("bad-target", False)
    template = world.find(base)
    if template is None or not template.template_for_dispvms:
        return Denied("not-dispvm-template", True)
    return target


def _refuse_source(requested: str, caller: str, world: World) -> Denied | None:
    remote = world.find(requested)
    if remote is None:
        return Denied("requested-source-unknown", True)
    if remote.klass != "RemoteVM":
        return Denied("requested-source-not-remote", True)
    if remote.relayvm != caller:
        return Denied("requested-source-not-relay", True)
    return None


def source_keys(source: str) -> frozenset[str]:
    """The keys of a source that is no qube of the world. It counts as a name unless it looks like a token."""
    if source in DOM0_TEXTS:
        return _DOM0_KEYS
    return _NO_QUBE_KEYS if source[:1] == "@" else _NO_QUBE_KEYS | {source}


def target_keys(target: str, source: str, world: World) -> frozenset[str]:
    """The keys of a prepared target that is no qube of the world. ``source`` is in whose name the call is."""
    if target in DOM0_TEXTS:
        return _DOM0_KEYS
    if target == "@default":
        return _NO_TARGET_KEYS
    if target == "@dispvm":
        base = world.disposable_base(source)
        own = [] if base is None else [f"@dispvm:{base.name}", *disposable_tag_keys(base)]
        return _NO_QUBE_KEYS.union(("@dispvm", *own))
    base = world.find(target.removeprefix("@dispvm:"))
    return _NO_QUBE_KEYS if base is None else _NO_QUBE_KEYS.union(disposable_keys(base))


def resolve(rule: Rule, allow: Allow, target: str, source: str, world: World) -> Allowed | Denied:
    """Where a call to the prepared ``target`` goes by a rule that allows it (section 7.2)."""
    where = target if allow.target is None else allow.target.token
    if where not in world.residents:
        reached = _reached(where, source, world)
        if isinstance(reached, Denied):
            return reached._replace(rule=rule)
        where = reached
    if not allow.autostart and not is_running(where, world):
        return Denied("needs-autostart", allow.notify, rule)
    # As Allowed(...) does it, without the call in between.
    return tuple.__new__(Allowed, (where, target, source, allow.user, allow.autostart, allow.notify, rule))


def _reached(token: str, source: str, world: World) -> str | Denied:
    """What a target or redirect that is no qube of the world comes to."""
    prepared = prepare(token, world)
    if prepared == "@default":
        return Denied("no-target", True)
    if prepared == "@dispvm":
        base = world.disposable_base(source)
        return Denied("no-dispvm-base", True) if base is None else f"@dispvm:{base.name}"
    return DOM0 if prepared == "@adminvm" else prepared


def _ask(rule: Rule, ask: Ask, plan: Plan, target: str, source: str, world: World) -> Asked | Denied:
    """The question that a rule puts (section 7.3)."""
    targets = choices(plan, ask, source, world)
    if not targets:
        return Denied("nothing-to-ask", True, rule)
    default = preselected(ask, targets, source, world)
    return Asked(targets, default, target, source, ask.user, ask.autostart, ask.notify, rule)
