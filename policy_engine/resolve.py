"""Where a call that a rule allows is carried out."""

from policy_engine.decision import Allowed, Denied
from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.model import DOM0, Allow
from policy_engine.policy import Policy
from policy_engine.targets import caller_name, frame_keys, is_running, prepare
from policy_engine.world import World


def delegated(
    policy: Policy, rule: DelegationRule, allow: Allow, service: str, target: str, source: str, world: World
) -> Allowed | Denied:
    """Where a call to the prepared ``target`` goes by a rule of the dialect that allows it.

    Calls of the Admin API are served by dom0. Where any other call ends must lie in the rule's frame as well.
    """
    if service in policy.served:
        # As Allowed(...) does it, without the call in between.
        return tuple.__new__(Allowed, (DOM0, target, source, allow.user, allow.autostart, allow.notify, rule))
    resolved = resolve(rule, allow, target, source, world)
    if isinstance(resolved, Allowed) and rule.frame is not None:
        name = caller_name(source, world)
        if not rule.frame.target.bound(name).matches(frame_keys(resolved.target, source, world)):
            return Denied("frame", True, rule)
    return resolved


def resolve(rule: AnyRule, allow: Allow, target: str, source: str, world: World) -> Allowed | Denied:
    """Where a call to the prepared ``target`` goes by a rule that allows it (section 7.2)."""
    where = target if allow.target is None else allow.target.token
    if world.resident(where) is None:
        reached = _reached(where, source, world)
        if isinstance(reached, Denied):
            return reached._replace(rule=rule)
        where = reached
    if not allow.autostart and not is_running(where, world):
        return Denied("needs-autostart", allow.notify, rule)
    # As above.
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
