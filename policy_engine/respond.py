"""From a decision to an answer: the user's choice, and the text that the qrexec daemon gets.

These are the end of section 7 and section 8 of the policy language.
"""

from policy_engine.decision import Allowed, Asked, Denied, Request
from policy_engine.model import DOM0, DOM0_TEXTS
from policy_engine.world import QubeFacts, World


def take(asked: Asked, choice: str, world: World) -> Allowed | Denied:
    """The user said yes to ``choice``."""
    if choice not in asked.targets:
        return Denied("not-a-choice", True, asked.rule)
    # Choices that ``target=`` put there unchecked. Upstream has no answer for them.
    if choice == "@dispvm":
        return Denied("no-dispvm-base", True, asked.rule)
    if choice != DOM0 and _reached(choice, world) is None:
        disposable = choice.startswith("@dispvm:")
        return Denied("not-dispvm-template" if disposable else "no-target", True, asked.rule)
    return Allowed(
        asked.served_by or choice,
        asked.requested_target,
        asked.source,
        asked.user,
        asked.autostart,
        asked.notify,
        asked.rule,
    )


def settle(asked: Asked, untrusted_answer: str | None, world: World) -> Allowed | Denied:
    """What comes of a question.

    Args:
        untrusted_answer: the agent's words, ``allow:TARGET`` or ``deny``; ``None`` if nobody can be asked.
    """
    if untrusted_answer is None or untrusted_answer == "deny":
        return Denied("user", asked.notify, asked.rule)
    if not untrusted_answer.startswith("allow:"):
        return Denied("bad-agent-answer", True, asked.rule)
    return take(asked, untrusted_answer.removeprefix("allow:"), world)


def respond(allowed: Allowed, request: Request, world: World) -> str | Denied:
    """The text for the qrexec daemon, without a line end after its last line."""
    target, rule = allowed.target, allowed.rule
    if target == allowed.source:
        return Denied("loopback", True, rule)
    autostart = f"autostart={allowed.autostart}"
    requested = f"requested_target={allowed.requested_target}"
    user = f"user={allowed.user or 'DEFAULT'}"
    if target in DOM0_TEXTS:
        return "\n".join((user, "result=allow", f"target={DOM0}", autostart, requested))

    reached = _reached(target, world)
    if reached is None:
        return Denied("no-target", True, rule)
    service: tuple[str, ...] = ()
    if target.startswith("@dispvm:"):
        place = _place(target, "@dispvm:", reached)
    elif reached.klass == "RemoteVM":
        relay = world.find(reached.relayvm) if reached.relayvm else None
        if relay is None:
            return Denied("relay-not-set", True, rule)
        if not reached.transport_rpc:
            return Denied("transport-not-set", True, rule)
        user = "user=DEFAULT"
        place = _place(relay.name, "", relay)
        called = request.service + request.argument
        service = (f"service={reached.transport_rpc}+{allowed.requested_target}+{called}",)
    else:
        place = _place(target, "", reached)
    source = (f"policy_source={allowed.source}",) if request.requested_source else ()
    return "\n".join((user, "result=allow", *place, autostart, requested, *service, *source))


def _reached(target: str, world: World) -> QubeFacts | None:
    return world.find(target.removeprefix("@dispvm:"))


def _place(target: str, prefix: str, qube: QubeFacts) -> tuple[str, ...]:
    return (f"target={target}",) + (() if qube.uuid is None else (f"target_uuid={prefix}uuid:{qube.uuid}",))
