"""Whom a change of policy would lock out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from broker.authoring.meaning import listed
from policy_engine import AnyRule, Catalogue, DelegationRule, Deny, Policy, World, visible
from policy_engine.differing import differing
from policy_engine.expression import Is
from policy_engine.impact import Impact
from policy_engine.model import ANY

_EVERYBODY = frozenset({ANY, "@anyvm"})


def lockouts(
    before: Policy,
    after: Policy,
    world: World,
    impact: Impact,
    catalogue: Catalogue,
    users: Mapping[str, str],
) -> Iterator[str]:
    """What to warn of, a sentence each.

    Args:
        users: the local users, by the qubes that their calls are judged as.
    """
    for rule in differing(before.rules, after.rules)[1]:
        if _denies_everything(rule):
            behind = after.rules[after.rules.index(rule) :]
            grants = sum(not isinstance(one.action, Deny) for one in behind)
            if grants:
                yield f"{rule.file}:{rule.line}: this denies every call before {grants} rules that grant some"
            break
    lost = defaultdict[str, set[str]](set)
    for turn in impact.turns:
        if turn.after == "deny" and turn.service.startswith(("admin.", "policy.")):
            lost[turn.source].add(turn.service)
    sentences = defaultdict[str, list[str]](list)
    for source, services in lost.items():
        who = f"{source} (the user {users[source]})" if source in users else source
        policy = sorted(service for service in services if service.startswith("policy."))
        if policy:
            sentences[f"may no longer call {listed(policy)}, by which policy is read and edited"].append(who)
        if len(policy) < len(services) and not _administers(after, world, source, catalogue.entries):
            sentences["may no longer call anything of the Admin API"].append(who)
    for sentence, sources in sentences.items():
        yield f"{listed(sources)} {sentence}"


def _denies_everything(rule: AnyRule) -> bool:
    if not isinstance(rule.action, Deny):
        return False
    if not isinstance(rule, DelegationRule):
        return (rule.service, rule.argument) == (ANY, ANY) and {
            rule.source.token,
            rule.target.token,
        } <= _EVERYBODY
    everybody = (rule.reach.source, rule.reach.target)
    return (
        rule.frame is None
        and "" in rule.reach.services.globs
        and "" in rule.reach.arguments.globs
        and all(isinstance(one, Is) and one.key in _EVERYBODY for one in everybody)
    )


def _administers(policy: Policy, world: World, source: str, services: Iterable[str]) -> bool:
    return any(
        visible(policy, world, source, service) for service in services if service.startswith("admin.")
    )
