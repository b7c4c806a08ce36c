"""The second step of a decision, where the payload is known: what a rule of the dialect says of a call beyond
its four fields.

The rule was chosen; if what it asks for is not so, the call is denied and falls through to no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policy_engine.catalogue import Entry, Value
from policy_engine.decision import Allowed, Asked, Decision, DenialKind, Denied, Request
from policy_engine.delegation import Allowance, DelegationRule
from policy_engine.policy import Policy
from policy_engine.targets import caller_name
from policy_engine.world import Resident, World


@dataclass(frozen=True, slots=True)
class Particulars:
    """What a call is about besides its four fields, as whoever carries it out reads it.

    Attributes:
        values: the payload in canonical form.
        subjects: the names of the qubes that it touches besides its destination, there or not.
        makes: the name of the qube that it makes; ``None`` if it makes none.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()
    makes: str | None = None


def confirm(
    policy: Policy, decision: Allowed | Asked, request: Request, particulars: Particulars, world: World
) -> Decision:
    """The decision as it stands when all is known of the call: the same one, or a denial. Never raises."""
    entry = None if policy.catalogue is None else policy.catalogue.entries.get(request.service)
    if entry is None:
        return decision
    kind = _refusal(policy, decision, request, entry, particulars, world)
    return decision if kind is None else Denied(kind, decision.notify, decision.rule)


def _refusal(
    policy: Policy,
    decision: Allowed | Asked,
    request: Request,
    entry: Entry,
    particulars: Particulars,
    world: World,
) -> DenialKind | None:
    # A name that is still spoken of would hand its next bearer what was meant for the last one.
    if particulars.makes is not None and policy.authority.refers_to(particulars.makes, world):
        return "name"
    rule = decision.rule
    if not isinstance(rule, DelegationRule):
        return None
    refusal = out_of_reach(policy, rule, request)
    if refusal is not None:
        return refusal
    argument = request.argument[1:]
    name = caller_name(decision.source, world)
    if rule.value is not None and not rule.value.admit(particulars.values, name, world):
        return "value"
    destination = world.resident(decision.requested_target)
    named = world.resident(entry.names.of(argument) or "")
    for subject in particulars.subjects:
        resident = world.resident(subject)
        if resident is None or not (
            resident is destination or _covers(rule, resident, resident is named, particulars, name)
        ):
            return "subject"
    return None


def out_of_reach(policy: Policy, rule: DelegationRule, request: Request) -> DenialKind | None:
    """What keeps the rule from granting the call with this argument, whatever its payload is."""
    entry = None if policy.catalogue is None else policy.catalogue.entries.get(request.service)
    if entry is None:
        return None
    argument = request.argument[1:]
    if entry.reserved(argument):
        return "reserved"
    altered = entry.alters(argument)
    if altered and policy.authority.confers(altered) and not rule.names_literally(request.argument):
        return "authority"
    return None


def _covers(
    rule: DelegationRule, subject: Resident, of_argument: bool, particulars: Particulars, name: str
) -> bool:
    """Whether the rule speaks of a qube that the call touches.

    Args:
        of_argument: the argument names it.
    """
    if rule.frame is not None and not rule.frame.target.bound(name).matches(subject.keys):
        return False
    if of_argument and rule.reach.arguments.qubes is not None:
        return True
    if rule.value is not None and rule.value.select(subject.facts.name, particulars.values):
        return True
    return rule.reach.target.bound(name).matches(subject.keys)


def allowance(policy: Policy, caller: str, world: World) -> Allowance:
    """How much of what it created the caller may have: what all matching limits leave."""
    resident = world.resident(caller)
    found = Allowance()
    if resident is None:
        return found
    for limit in policy.limits:
        if limit.source.bound(resident.facts.name).matches(resident.keys):
            found = found.within(limit.allowance)
    return found
