"""The adapter between a corpus of policy cases and the engine: a case in, an answer out, both as JSON
objects.

The daemon's part of an answer is what a policy daemon does around the engine, with an agent that reads its
lines from the case: who is asked or told, and the text that the caller gets in the end.
"""

import base64
import json
import sys
from collections.abc import Iterable
from typing import Any

from policy_engine import (
    CONFIGURED,
    LEGACY,
    RUNTIME,
    Allow,
    Allowed,
    Ask,
    Asked,
    Decision,
    Denied,
    MemorySource,
    Policy,
    PolicyError,
    Request,
    Rule,
    World,
    WorldError,
    decide,
    load,
    respond,
    settle,
    take,
)

Json = dict[str, Any]


def answer(case: Json) -> Json:
    """The engine's answer to one case, in the shape of the case's ``expect``."""
    try:
        policy: Policy | PolicyError = load(tree(case))
    except PolicyError as error:
        policy = error
    if case["type"] == "parse":
        if isinstance(policy, PolicyError):
            return {"id": case["id"], **_refusal(policy)}
        return {
            "id": case["id"],
            "ok": True,
            "rules": [_rule(rule) for rule in policy.rules if isinstance(rule, Rule)],
        }
    world = World.from_system_info(case["system_info"])
    if isinstance(policy, PolicyError):
        results = [_refused(policy, world, question) for question in case["requests"]]
        return {"id": case["id"], "load": _refusal(policy), "results": results}
    results = [_result(policy, world, question) for question in case["requests"]]
    return {"id": case["id"], "load": {"ok": True}, "results": results}


def tree(case: Json) -> MemorySource:
    missing = case.get("missing_dirs", [])
    files = {
        path: base64.b64decode(content["b64"]) if isinstance(content, dict) else content.encode()
        for path, content in case["files"].items()
    }
    directories = [path for path in (RUNTIME, CONFIGURED, LEGACY) if path not in missing]
    return MemorySource(files, [*directories, *case.get("dirs", [])], case.get("symlinks"))


def _refusal(error: PolicyError) -> Json:
    return {"ok": False, "kind": error.kind, "file": error.file, "line": error.line}


def _rule(rule: Rule) -> list[object]:
    action = rule.action
    parameters: Json = {"notify": action.notify}
    name = "deny"
    if isinstance(action, Allow | Ask):
        name = "allow"
        parameters["target"] = None if action.target is None else action.target.token
        parameters["user"] = action.user
        parameters["autostart"] = action.autostart
    if isinstance(action, Ask):
        name = "ask"
        parameters["default_target"] = None if action.default_target is None else action.default_target.token
    source, target = rule.source.token, rule.target.token
    return [rule.service, rule.argument, source, target, name, parameters, rule.file, rule.line]


def _request(question: Json) -> Request:
    return Request.of(
        question["service_and_arg"],
        question["source"],
        question["intended_target"],
        question.get("requested_source"),
    )


def _refused(error: PolicyError, world: World, question: Json) -> Json:
    """Every request while the policy does not load. The author of a flawed line is told by other means."""
    agent = _Agent(world, _request(question), question["agent_answer"])
    if error.line is None:
        agent.tell_denial()
    result: Json = {"decision": "deny", "kind": "bad-policy", "just_evaluate": "deny"}
    daemon = {"response": "result=deny", "agent_calls": agent.calls}
    return result | {"just_evaluate_assume_yes": "deny", "daemon": daemon}


def _result(policy: Policy, world: World, question: Json) -> Json:
    request = _request(question)
    decision = decide(policy, request, world)
    response: str | None = None
    outcome = decision
    if isinstance(decision, Allowed):
        # Loopback and the checks of a RemoteVM belong to the response; a corpus reports both as one.
        reply = respond(decision, request, world)
        if isinstance(reply, Denied):
            outcome = reply
        else:
            response = reply
    rule = outcome.rule
    result: Json = {
        "rule": None if rule is None else [rule.file, rule.line],
        "notify": outcome.notify,
        "daemon": _daemon(decision, request, world, question["agent_answer"]),
    }
    evaluated, assumed = "deny", "deny"
    match outcome:
        case Denied(kind):
            result |= {"decision": "deny", "kind": kind}
        case Asked():
            result |= {"decision": "ask", "user": outcome.user, "autostart": outcome.autostart}
            result |= {"targets": list(outcome.targets), "default_target": outcome.default_target}
            result["picks"] = _picks(outcome, request, world)
        case Allowed():
            result |= {"decision": "allow", "user": outcome.user, "autostart": outcome.autostart}
            result |= {"target": outcome.target, "requested_target": outcome.requested_target}
            result["response"] = response
    # A question that only wants the policy's word never comes to the checks of the response.
    if isinstance(decision, Allowed):
        evaluated = assumed = "allow"
    elif isinstance(decision, Asked) and decision.requested_target in decision.targets:
        assumed = "allow"
    return result | {"just_evaluate": evaluated, "just_evaluate_assume_yes": assumed}


def _picks(asked: Asked, request: Request, world: World) -> list[list[str]]:
    """What comes of the first two choices and of the default one.

    The corpora have no entry for a choice that cannot be carried out, since upstream has no answer there.
    """
    picks = []
    default = (asked.default_target,) if asked.default_target is not None else ()
    for choice in dict.fromkeys((*asked.targets[:2], *default)):
        taken = take(asked, choice, world)
        if isinstance(taken, Allowed):
            reply = respond(taken, request, world)
            picks.append([choice, f"deny:{reply.kind}" if isinstance(reply, Denied) else reply])
    return picks


def _daemon(decision: Decision, request: Request, world: World, agent_answer: str) -> Json:
    agent = _Agent(world, request, agent_answer)
    outcome = settle(decision, agent.ask(decision), world) if isinstance(decision, Asked) else decision
    reply: str | Denied
    if isinstance(outcome, Allowed):
        if outcome.notify:
            agent.tell("allow", outcome.source, outcome.target)
        reply = respond(outcome, request, world)
    else:
        reply = outcome
    if isinstance(reply, Denied):
        if reply.notify:
            agent.tell_denial()
        reply = "result=deny"
    return {"response": reply, "agent_calls": agent.calls}


class _Agent:
    """The agents of all GUI qubes: they write down what they are called for, and say what they were given to
    say.
    """

    def __init__(self, world: World, request: Request, answer: str) -> None:
        self.calls: list[Json] = []
        self._world = world
        self._request = request
        self._answer = answer

    def ask(self, asked: Asked) -> str | None:
        choices = {"targets": list(asked.targets), "default_target": asked.default_target or ""}
        return self._call("policy.Ask", asked.source, choices)

    def tell(self, resolution: str, source: str, target: str) -> None:
        self._call("policy.Notify", source, {"resolution": resolution, "target": target})

    def tell_denial(self) -> None:
        self.tell("deny", self._request.source, self._request.target)

    def _call(self, service: str, source: str, parameters: Json) -> str | None:
        facts = self._world.find(source)
        if facts is None or facts.guivm is None:
            return None
        call = {"source": source, "service": self._request.service, "argument": self._request.argument}
        self.calls.append({"guivm": facts.guivm, "service": service, "params": call | parameters})
        return self._answer


def converse(lines: Iterable[str]) -> None:
    """Answer each line on standard output before the next is read.

    A case that makes no sense is answered by its id alone, with the reason on standard error.
    """
    for line in lines:
        case = json.loads(line)
        try:
            answered = answer(case)
        except (LookupError, TypeError, ValueError, WorldError) as error:
            print(f"{case.get('id')}: {error!r}", file=sys.stderr)
            answered = {"id": case.get("id")}
        print(json.dumps(answered), flush=True)


if __name__ == "__main__":
    converse(sys.stdin)
