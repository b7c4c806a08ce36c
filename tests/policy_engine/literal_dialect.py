"""The design of the delegation dialect, word by word, beside the stock language of ``literal.py``.

A rule is the words that were written and, where it is framed, those of the rule around it. Nothing of the
engine's reading of the dialect is used but the action. Slow, and so a second opinion for the laws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policy_engine import (
    Allow,
    Allowed,
    AnyRule,
    Ask,
    Asked,
    Decision,
    Denied,
    Deny,
    Request,
    Rule,
    World,
)
from policy_engine.parse import read_target
from tests.policy_engine import literal
from tests.policy_engine.catalogue import ENTRIES


@dataclass(frozen=True)
class Written:
    """A rule as somebody wrote it.

    Attributes:
        rule: what the engine made of it; of a rule in the dialect only its action counts here.
        words: service, argument, source and target; none of a rule in the stock language.
        frame: the same of the rule around it, if there is one.
        defined: the expressions that ``!define`` names, without their brackets.
    """

    rule: AnyRule
    words: Sequence[str] = ()
    frame: Sequence[str] = ()
    defined: Mapping[str, str] = field(default_factory=dict)

    def levels(self) -> list[Sequence[str]]:
        return [words for words in (self.words, self.frame) if words]


Policy = Sequence[Written]


def decide(policy: Policy, request: Request, world: World) -> Decision:
    target = literal.checked(request.target or "@default", world)
    if isinstance(target, Denied):
        return target
    source = request.source
    if request.requested_source:
        refused = refusal(request.requested_source, source, world)
        if refused is not None:
            return refused
        source = request.requested_source
    written = deciding(policy, request, target, source, world)
    if written is None:
        return Denied("no-rule", True)
    rule, action = written.rule, written.rule.action
    if isinstance(action, Deny):
        return Denied("rule", action.notify, rule)
    if isinstance(action, Allow):
        return allowed(written, action, request, target, source, world)
    if isinstance(rule, Rule):
        choices = collected(policy, request, action, source, world)
    else:
        choices = offered(policy, written, request, action, target, source, world)
    if not choices:
        return Denied("nothing-to-ask", True, rule)
    default = None if action.default_target is None else literal.written(action.default_target)
    if default == "@dispvm":
        default = literal.own_disposable(source, world)
    elif default in literal.DOM0:
        default = "dom0"
    return Asked(
        tuple(sorted(choices)),
        default if default in choices else None,
        target,
        source,
        action.user,
        action.autostart,
        action.notify,
        rule,
        "dom0" if request.service in ENTRIES and not isinstance(rule, Rule) else None,
    )


def deciding(policy: Policy, request: Request, target: str, source: str, world: World) -> Written | None:
    """The first rule all of whose fields match."""
    for written in policy:
        if not missed(written, request, target, source, world):
            return written
    return None


def missed(written: Written, request: Request, target: str, source: str, world: World) -> list[str]:
    """The fields that do not match; those of a frame count as the rule's own."""
    rule = written.rule
    if isinstance(rule, Rule):
        answers = {
            "service": rule.service in ("*", request.service),
            "argument": rule.argument in ("*", request.argument),
            "source": literal.matches(rule.source, source, source, world),
            "target": literal.matches(rule.target, target, source, world),
        }
    else:
        answers = {"service": True, "argument": True, "source": True, "target": True}
        for words in written.levels():
            service, argument, from_, to = words
            answers["service"] &= covers_service(service, request.service)
            answers["argument"] &= covers_argument(argument, request, source, world, written)
            answers["source"] &= speaks_of(from_, source, source, world, written)
            seen = target if words is written.words else in_frame(target, source, world)
            answers["target"] &= seen is not None and speaks_of(to, seen, source, world, written)
    return [name for name, matches in answers.items() if not matches]


def refusal(requested: str, relay: str, world: World) -> Denied | None:
    remote = literal.find(requested, world)
    if remote is None:
        return Denied("requested-source-unknown", True)
    if remote.klass != "RemoteVM":
        return Denied("requested-source-not-remote", True)
    return None if remote.relayvm == relay else Denied("requested-source-not-relay", True)


def covers_service(text: str, service: str) -> bool:
    return any(covers_one_service(part, service) for part in text.split("|"))


def covers_one_service(part: str, service: str) -> bool:
    if part.startswith("@"):
        access, _, scope = part[1:].partition(":")
        entry = ENTRIES.get(service)
        return entry is not None and entry.access == access and scope in ("", entry.scope)
    if not part.endswith("*"):
        return part == service
    for guarded in ("admin.", "policy."):
        if service.startswith(guarded) and not part.startswith(guarded):
            return False
    return service.startswith(part[:-1])


def covers_argument(text: str, request: Request, source: str, world: World, written: Written) -> bool:
    if text[0] in "+*":
        return any(
            request.argument.startswith(part[:-1]) if part.endswith("*") else part == request.argument
            for part in text.split("|")
        )
    name = named(request)
    return name is not None and speaks_of(text, name, source, world, written, only_qubes=True)


def named(request: Request) -> str | None:
    """The qube that the argument names, whether it exists or not."""
    entry = ENTRIES.get(request.service)
    if entry is None or entry.names.value == "nothing":
        return None
    argument = request.argument.removeprefix("+")
    return argument.split("+")[0] if entry.names.value == "device" else argument


def speaks_of(
    expression: str, text: str, source: str, world: World, written: Written, *, only_qubes: bool = False
) -> bool:
    """Whether the expression matches what the text stands for."""
    if only_qubes and literal.find(text, world) is None:
        return False

    def factor(part: str) -> bool:
        if part.startswith("!"):
            qube = literal.find(text, world)
            return qube is not None and qube.name != "dom0" and not factor(part[1:])
        if part in written.defined:
            return either(written.defined[part])
        filled = filled_in(part, source, world)
        return filled is not None and is_token(filled, text, source, world)

    def either(parts: str) -> bool:
        return any(all(factor(part) for part in both.split(",")) for both in parts.split("|"))

    return either(expression)


def filled_in(token: str, source: str, world: World) -> str | None:
    """The token for this caller; ``None`` if it stands for nothing."""
    if "{source}" not in token:
        return token
    caller = literal.find(source, world)
    before, after = token.split("{source}")
    if caller is None or (after and after[0] in caller.name):
        return None
    filled = f"{before}{caller.name}{after}"
    # dom0 is matched by naming it only.
    return None if filled in literal.DOM0 else filled


def is_token(token: str, text: str, source: str, world: World) -> bool:
    qube = literal.find(text, world)
    if token.startswith("@label:"):
        return qube is not None and qube.label_name == token.removeprefix("@label:")
    if token.startswith("@template:"):
        return qube is not None and qube.template == token.removeprefix("@template:")
    return literal.matches(read_target(token), text, source, world)


def in_frame(target: str, source: str, world: World) -> str | None:
    """What a frame takes a target for: a disposable counts as its template, if there is one."""
    if not target.startswith("@dispvm"):
        return target
    disposable = literal.own_disposable(source, world) if target == "@dispvm" else target
    base = None if disposable is None else literal.find(disposable.removeprefix("@dispvm:"), world)
    return None if base is None else base.name


def allowed(
    written: Written, action: Allow, request: Request, target: str, source: str, world: World
) -> Decision:
    rule = written.rule
    if isinstance(rule, Rule):
        return literal.allow(rule, action, target, source, world)
    if request.service in ENTRIES:
        return Allowed("dom0", target, source, action.user, action.autostart, action.notify, rule)
    answer = literal.allow(rule, action, target, source, world)
    if isinstance(answer, Allowed) and written.frame and not framed(written, answer.target, source, world):
        return Denied("frame", True, rule)
    return answer


def framed(written: Written, target: str, source: str, world: World) -> bool:
    seen = in_frame(target, source, world)
    return seen is not None and speaks_of(written.frame[3], seen, source, world, written)


def offered(
    policy: Policy, written: Written, request: Request, ask: Ask, target: str, source: str, world: World
) -> set[str]:
    """What a question of the dialect offers: all for which this very rule decides, inside its frame; of
    a call that dom0 serves, the qube that it is about."""
    if request.service in ENTRIES:
        about = literal.find(target, world)
        return {"dom0"} if target in literal.DOM0 else set() if about is None else {about.name}
    if ask.target is not None:
        text = literal.written(ask.target)
        texts = {"dom0" if text in literal.DOM0 else text}
        texts = {text for text in texts if not written.frame or framed(written, text, source, world)}
    else:
        caller = literal.find(source, world)
        shown = [qube for qube in world if not qube.internal]
        texts = {qube.name for qube in shown if qube is not caller}
        texts |= {f"@dispvm:{qube.name}" for qube in shown if qube.template_for_dispvms} | {"dom0"}
        texts -= {"dom0"} & {qube.name for qube in world if qube.internal or qube is caller}
        texts = {text for text in texts if deciding(policy, request, text, source, world) is written}
    return texts if ask.autostart else {text for text in texts if literal.runs(text, world)}


def collected(policy: Policy, request: Request, ask: Ask, source: str, world: World) -> set[str]:
    """The collection of the stock language; a rule of the dialect removes what it may be about."""
    if ask.target is not None:
        text = literal.written(ask.target)
        texts = {"dom0" if text in literal.DOM0 else text}
        return texts if ask.autostart else {text for text in texts if literal.runs(text, world)}
    texts = set()
    for written in reversed(policy):
        rule = written.rule
        if not isinstance(rule, Rule):
            if not missed_but_target(written, request, source, world):
                texts -= {text for text in texts if may_be_about(written, text, source, world)}
            continue
        if literal.fits(rule, request, source, world):
            redirect = None if isinstance(rule.action, Deny) else rule.action.target
            spoken_of = literal.expand(rule.target if redirect is None else redirect, world)
            texts = texts - spoken_of if isinstance(rule.action, Deny) else texts | spoken_of
    return literal.shown(texts, ask, source, world)


def missed_but_target(written: Written, request: Request, source: str, world: World) -> bool:
    """Whether its service, source or the text of its argument do not match."""
    texts_only = [words for words in written.levels() if words[1][0] in "+*"]
    return not (
        all(covers_service(words[0], request.service) for words in written.levels())
        and all(covers_argument(words[1], request, source, world, written) for words in texts_only)
        and all(speaks_of(words[2], source, source, world, written) for words in written.levels())
    )


def may_be_about(written: Written, text: str, source: str, world: World) -> bool:
    """Whether the rule may decide on a target that is written like this, in doubt yes."""
    for words in written.levels():
        tokens = [token.lstrip("!") for part in words[3].split("|") for token in part.split(",")]
        tokens = [token for name in tokens for token in atoms(name, written)]
        tokens = [token for token in tokens if filled_in(token, source, world) is not None]
        if text.startswith("@dispvm"):
            if words is written.words and any(
                token.startswith(("@dispvm", "@anyvm", "*")) for token in tokens
            ):
                continue
            seen = in_frame(text, source, world) if words is written.frame else None
            if seen is None or not speaks_of(words[3], seen, source, world, written):
                return False
        elif text in literal.DOM0 and literal.find(text, world) is None:
            if not {"*", *literal.DOM0} & set(tokens):
                return False
        elif not speaks_of(words[3], text, source, world, written):
            return False
    return True


def atoms(token: str, written: Written) -> list[str]:
    if token not in written.defined:
        return [token]
    parts = [part.lstrip("!") for both in written.defined[token].split("|") for part in both.split(",")]
    return [atom for part in parts for atom in atoms(part, written)]


def qubes_allowed(policy: Policy, request: Request, world: World) -> list[str]:
    """The names of those that the request reaches when they are its target."""
    return [
        qube.name
        for qube in world
        if isinstance(decide(policy, request._replace(target=qube.name), world), Allowed)
    ]
