"""Sections 5 to 7 of the policy language, word by word: one rule, one text, one test at a time.

Slow, without an index, a key or a bit, and so a second opinion for the laws.
"""

from policy_engine import (
    Allow,
    Allowed,
    AnyRule,
    Ask,
    Asked,
    Decision,
    Denied,
    Policy,
    QubeFacts,
    Request,
    Rule,
    World,
)
from policy_engine.model import (
    AdminQube,
    AnyQube,
    Anything,
    Deny,
    Disposable,
    DisposableOf,
    DisposableTagged,
    Named,
    NoTarget,
    Selector,
    Tagged,
    Typed,
)
from tests.policy_engine.stock import stock

DOM0 = ("dom0", "@adminvm", "uuid:00000000-0000-0000-0000-000000000000")


def decide(policy: Policy, request: Request, world: World) -> Decision:
    target = checked(request.target or "@default", world)
    if isinstance(target, Denied):
        return target
    source = request.source
    if request.requested_source:
        remote = find(request.requested_source, world)
        if remote is None:
            return Denied("requested-source-unknown", True)
        if remote.klass != "RemoteVM":
            return Denied("requested-source-not-remote", True)
        if remote.relayvm != source:
            return Denied("requested-source-not-relay", True)
        source = request.requested_source
    for rule in stock(policy.rules):
        if fits(rule, request, source, world) and matches(rule.target, target, source, world):
            break
    else:
        return Denied("no-rule", True)
    action = rule.action
    if isinstance(action, Deny):
        return Denied("rule", action.notify, rule)
    if isinstance(action, Allow):
        return allow(rule, action, target, source, world)
    choices = collect(policy, request, action, source, world)
    if not choices:
        return Denied("nothing-to-ask", True, rule)
    default = None
    if action.default_target is not None:
        default = written(action.default_target)
        if default == "@dispvm":
            default = own_disposable(source, world)
        elif default in DOM0:
            default = "dom0"
    shown = default if default in choices else None
    return Asked(
        tuple(sorted(choices)), shown, target, source, action.user, action.autostart, action.notify, rule
    )


def checked(target: str, world: World) -> str | Denied:
    if target in ("@adminvm", "@default", "@dispvm", "dom0"):
        return target
    if target.startswith("@dispvm:") and len(target) > 8 and target[8] != "@":
        base = find(target[8:], world)
        return target if base and base.template_for_dispvms else Denied("not-dispvm-template", True)
    if target.startswith("@") or target == "*":
        return Denied("bad-target", False)
    return target if find(target, world) else "@default"


def fits(rule: Rule, request: Request, source: str, world: World) -> bool:
    return (
        rule.service in ("*", request.service)
        and rule.argument in ("*", request.argument)
        and not isinstance(rule.source, DisposableOf | DisposableTagged)
        and matches(rule.source, source, source, world)
    )


def matches(selector: Selector, text: str, source: str, world: World) -> bool:
    match selector:
        case Anything():
            return True
        case AnyQube():
            return text not in DOM0
        case AdminQube():
            return text in DOM0
        case Named(name):
            return text in DOM0 if name in DOM0 else same(name, text, world)
        case Tagged(tag):
            qube = find(text, world)
            return qube is not None and tag in qube.tags
        case Typed(klass):
            qube = find(text, world)
            return qube is not None and klass == qube.klass
        case NoTarget():
            return text == "@default"
        case Disposable():
            return text == "@dispvm"
        case DisposableOf(name):
            if text == "@dispvm":
                return own_disposable(source, world) == f"@dispvm:{name}"
            return text.startswith("@dispvm:") and same(name, text[8:], world)
        case DisposableTagged(tag):
            base_text = own_disposable(source, world) if text == "@dispvm" else text
            if base_text is None or not base_text.startswith("@dispvm:"):
                return False
            base = find(base_text[8:], world)
            return base is not None and base.template_for_dispvms and tag in base.tags


def same(name: str, text: str, world: World) -> bool:
    if name == text:
        return True
    mine, other = find(name, world), find(text, world)
    return mine is not None and mine is other and name.startswith("uuid:") != text.startswith("uuid:")


def allow(rule: AnyRule, action: Allow, target: str, source: str, world: World) -> Allowed | Denied:
    where = checked(target if action.target is None else written(action.target), world)
    if isinstance(where, Denied):
        return Denied(where.kind, where.notify, rule)
    if where == "@default":
        return Denied("no-target", True, rule)
    if where == "@dispvm":
        own = own_disposable(source, world)
        if own is None:
            return Denied("no-dispvm-base", True, rule)
        where = own
    if where == "@adminvm":
        where = "dom0"
    if not action.autostart and not runs(where, world):
        return Denied("needs-autostart", action.notify, rule)
    return Allowed(where, target, source, action.user, action.autostart, action.notify, rule)


def collect(policy: Policy, request: Request, ask: Ask, source: str, world: World) -> set[str]:
    if ask.target is not None:
        text = written(ask.target)
        texts = {"dom0" if text in DOM0 else text}
    else:
        texts = set()
        for rule in reversed(stock(policy.rules)):
            if fits(rule, request, source, world):
                action = rule.action
                redirect = None if isinstance(action, Deny) else action.target
                spoken_of = expand(rule.target if redirect is None else redirect, world)
                texts = texts - spoken_of if isinstance(action, Deny) else texts | spoken_of
        return shown(texts, ask, source, world)
    return texts if ask.autostart else {text for text in texts if runs(text, world)}


def shown(texts: set[str], ask: Ask, source: str, world: World) -> set[str]:
    """What is left of the texts that were collected when they are put to the user."""
    if "@dispvm" in texts:
        texts = texts - {"@dispvm"} | {own_disposable(source, world) or "@adminvm"} - {"@adminvm"}
    if "@adminvm" in texts:
        texts = texts - {"@adminvm"} | {"dom0"}
    caller = find(source, world)
    internal = {qube.name for qube in world if qube.internal}
    gone = internal | {f"@dispvm:{name}" for name in internal} | ({caller.name} if caller else set())
    texts = texts - gone
    return texts if ask.autostart else {text for text in texts if runs(text, world)}


def expand(selector: Selector, world: World) -> set[str]:
    disposables = {f"@dispvm:{qube.name}" for qube in world if qube.template_for_dispvms}
    names = {qube.name for qube in world}
    match selector:
        case Named(name):
            qube = find(name, world)
            return {qube.name} if qube else set()
        case AdminQube():
            return {"@adminvm"}
        case NoTarget():
            return set()
        case Disposable():
            return {"@dispvm"}
        case DisposableOf(base):
            qube = find(base, world)
            return {f"@dispvm:{qube.name}"} & disposables if qube else set()
        case Tagged(tag):
            return {qube.name for qube in world if tag in qube.tags}
        case Typed(klass):
            return {qube.name for qube in world if qube.klass == klass}
        case DisposableTagged(tag):
            return disposables & {f"@dispvm:{qube.name}" for qube in world if tag in qube.tags}
        case AnyQube():
            return names - {"dom0"} | disposables | {"@dispvm"}
        case Anything():
            return names | disposables | {"@dispvm", "dom0"}


def find(text: str, world: World) -> QubeFacts | None:
    for qube in world:
        if text == qube.name or (qube.uuid is not None and text == f"uuid:{qube.uuid}"):
            return qube
    return None


def own_disposable(source: str, world: World) -> str | None:
    caller = find(source, world)
    if caller is None or caller.default_dispvm is None or find(caller.default_dispvm, world) is None:
        return None
    return f"@dispvm:{caller.default_dispvm}"


def runs(text: str, world: World) -> bool:
    qube = find(text, world)
    return text in DOM0 or (qube is not None and qube.power_state == "Running")


def written(selector: Selector) -> str:
    match selector:
        case Named(name):
            return name
        case AdminQube():
            return "@adminvm"
        case Disposable():
            return "@dispvm"
        case DisposableOf(base):
            return f"@dispvm:{base}"
        case other:
            raise AssertionError(f"{other} is no redirect")
