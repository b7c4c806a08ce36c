"""What the words of a request are to the rules: the qubes they name, and the keys that selectors look for."""

from policy_engine.decision import Denied
from policy_engine.model import DOM0, DOM0_TEXTS
from policy_engine.policy import Policy
from policy_engine.world import World, disposable_keys, disposable_tag_keys

NO_KEYS: frozenset[str] = frozenset()
"""Those of what is not there."""

_DOM0_KEYS = frozenset({"*", "@adminvm"})
_NO_TARGET_KEYS = frozenset({"*", "@anyvm", "@default"})
_NO_QUBE_KEYS = frozenset({"*", "@anyvm"})


def prepare(target: str, world: World) -> str | Denied:
    """The caller's target after checking: empty and unknown qubes are ``@default``."""
    if world.resident(target) is not None or target == DOM0:
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


def frame_keys(target: str, source: str, world: World) -> frozenset[str]:
    """The keys of a target as a frame sees it: a disposable counts as its template."""
    resident = world.resident(target)
    if resident is None and target.startswith("@dispvm"):
        base = world.disposable_base(source) if target == "@dispvm" else world.find(target[len("@dispvm:") :])
        resident = None if base is None else world.resident(base.name)
        return NO_KEYS if resident is None else resident.keys
    return target_keys(target, source, world) if resident is None else resident.keys


def argument_keys(policy: Policy, service: str, argument: str, world: World) -> frozenset[str]:
    """The keys of the qube that the argument of a call names; none where it names none that is there."""
    entry = None if policy.catalogue is None else policy.catalogue.entries.get(service)
    name = None if entry is None else entry.names.of(argument[1:])
    resident = None if name is None else world.resident(name)
    return NO_KEYS if resident is None else resident.keys


def caller_name(source: str, world: World) -> str:
    """The name of the calling qube; empty for what is no qube of the world."""
    caller = world.find(source)
    return "" if caller is None else caller.name


def is_running(target: str, world: World) -> bool:
    """Whether a call to the target starts nothing: it is dom0 or a qube that runs, never a new disposable."""
    if target in DOM0_TEXTS:
        return True
    facts = world.find(target)
    return facts is not None and facts.power_state == "Running"
