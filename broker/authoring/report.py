"""What ``qubes-policy`` says of a policy: documents for ``--json``, and the same as text for people."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from broker.colour import Colours
from policy_engine import (
    Allowed,
    AnyRule,
    Asked,
    Demands,
    Explanation,
    PolicyError,
    PolicySource,
    Request,
    World,
    format_rule,
    inclusions,
)
from qubesd.model.state import DOM0

_WIDTH = 100
"""Columns of a line of policy that are shown around an error."""

_WHY = {
    "rule": "a rule denies it",
    "frame": "the target leads out of the frame of the rule that allows it",
    "value": "the payload is not what the rule asks for",
    "subject": "it touches another qube, which the rule does not speak of",
    "authority": "rules build on what it changes, so the rule must name +ARGUMENT itself",
    "reserved": "it is dom0's alone",
    "name": "rules or tags still speak of that name, so it is dom0's to use again",
    "no-rule": "no rule matches, and what no rule allows is denied",
    "bad-target": "the target is no word that a caller may use",
    "not-dispvm-template": "the target names no qube with template_for_dispvms set",
    "no-dispvm-base": "the source has no default_dispvm",
    "no-target": "a rule allows it, but the call has no target that exists; target= can name one",
    "needs-autostart": "the target does not run, and the rule says autostart=no",
    "nothing-to-ask": "a rule asks, but leaves nothing to choose from",
    "requested-source-unknown": "the source that it is made for does not exist",
    "requested-source-not-remote": "the source that it is made for is no RemoteVM",
    "requested-source-not-relay": "the caller is not the relay of the source that it is made for",
}


def marked_line(error: PolicyError, source: PolicySource, colours: Colours) -> Iterator[str]:
    """The line that an error is about, and a mark under its column; nothing where there is no line."""
    if error.line is None or error.column is None:
        return
    try:
        text = source.read(error.file, 1 << 24).decode("utf-8", "replace")
    except OSError:
        return
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if error.line > len(lines):
        return
    line = harmless(lines[error.line - 1])
    at = error.column - 1
    start = max(0, at - _WIDTH // 2) if len(line) > _WIDTH else 0
    shown, before = line[start : start + _WIDTH], line[start:at]
    yield f"    {shown.rstrip()}"
    yield f"    {' ' * sum(map(_columns, before))}{colours.bad('^')}"


def explanation_document(explanation: Explanation, request: Request) -> dict[str, Any]:
    """An explanation as ``--json`` gives it."""
    decision = explanation.decision
    document: dict[str, Any] = {
        "source": request.source,
        "requested_source": request.requested_source,
        "service": request.service,
        "argument": request.argument,
        "target": request.target,
        "matched_target": explanation.target,
    }
    if isinstance(decision, Allowed):
        document |= {"decision": "allow", "goes_to": decision.target, "user": decision.user}
        document |= {"autostart": decision.autostart}
    elif isinstance(decision, Asked):
        document |= {"decision": "ask", "choices": list(decision.targets)}
        document |= {"default_choice": decision.default_target}
    else:
        document |= {"decision": "deny", "reason": decision.kind}
    document["rule"] = None if decision.rule is None else _rule_document(decision.rule)
    document["demands"] = None if explanation.demands is None else asdict(explanation.demands)
    document["near_misses"] = [
        {"field": miss.field, **_rule_document(miss.rule)} for miss in explanation.near_misses
    ]
    return document


def explanation_text(
    explanation: Explanation, request: Request, world: World, colours: Colours
) -> Iterator[str]:
    """An explanation as lines."""
    decision, rule = explanation.decision, explanation.decision.rule
    service = request.service if request.argument == "+" else request.service + request.argument
    caller = (
        f"{request.source} for {request.requested_source}" if request.requested_source else request.source
    )
    what = f"{caller} calls {service} on {request.target or '@default'}"
    if isinstance(decision, Allowed):
        yield f"{colours.good('allow')}  {what}; it goes to {harmless(decision.target)}"
    elif isinstance(decision, Asked):
        yield f"{colours.odd('ask')}  {what}; the choices are {harmless(', '.join(decision.targets))}"
    else:
        yield f"{colours.bad('deny')}  {what}: {_WHY.get(decision.kind, decision.kind)}"
    for hint in _hints(explanation, request, world):
        yield f"      {hint}"
    if rule is not None:
        yield ""
        yield "The rule that decides:"
        yield f"  {colours.title(harmless(format_rule(rule)))}"
        yield f"  {_place(rule)}"
        for inclusion in inclusions(rule):
            yield f"  {colours.faint('included by')} {harmless(inclusion.file)}:{inclusion.line}"
    if explanation.demands is not None:
        yield ""
        yield "What it asks for besides, or the call is denied:"
        yield from _demands_text(explanation.demands)
    if explanation.near_misses:
        yield ""
        which = "Rules before it" if rule is not None else "Rules"
        yield f"{which} that match in all fields but one:"
        yield from table(
            ("but for", "rule", "place"),
            (
                (miss.field, harmless(format_rule(miss.rule)), _place(miss.rule))
                for miss in explanation.near_misses
            ),
            colours,
        )


def _demands_text(demands: Demands) -> Iterator[str]:
    if demands.value is not None:
        yield f"  the payload is {harmless(demands.value)}"
    if demands.framed_to is not None:
        yield f"  in its frame, it leads from {demands.framed_from} to {demands.framed_to}"
    yield f"  what else it touches is {demands.selects}, or selected by the argument or value"


def status_text(statuses: Sequence[Mapping[str, Any]], colours: Colours) -> Iterator[str]:
    """The answers to ``internal.PolicyStatus`` of the daemons that run, as lines."""
    for number, status in enumerate(statuses):
        if number:
            yield ""
        yield from _daemon_text(status, colours)
    if len({status["digest"] for status in statuses}) > 1:
        yield ""
        yield f"warning  {colours.odd('these daemons decide by different policies')}"


def _daemon_text(status: Mapping[str, Any], colours: Colours) -> Iterator[str]:
    error = status["error"]
    if error is None:
        state = colours.good("in force")
    elif status["in_force"]:
        state = colours.odd("the last good one is in force, the files have an error")
    else:
        state = colours.bad("none: every judged call is denied")
    yield f"policy   {state}"
    yield f"since    {_moment(status['since'])}"
    yield f"used by  {status['program']}, process {status['pid']}, started {_moment(status['started'])}"
    for socket in status["sockets"] or ["no socket of its own: another policy daemon is in front"]:
        yield f"asked on {harmless(socket)}"
    if error is not None:
        found = PolicyError(
            error["kind"], error["message"], file=error["file"], line=error["line"], column=error["column"]
        )
        yield f"error    {colours.bad(str(found))}"
        yield "         qubes-policy check shows every error; what is repaired comes into force by itself"
    if status["in_force"]:
        yield f"digest   {status['digest']}"
        yield f"rules    {status['rules']} in {len(status['files'])} files"
        yield from (f"           {harmless(file)}" for file in status["files"])
    for warning in status["warnings"]:
        yield f"warning  {colours.odd(warning)}"
    for place in status["unwatched"]:
        yield f"warning  {colours.odd(f'{place}: cannot be watched, looked at every second')}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def table(
    head: tuple[str, ...], rows: Iterable[tuple[str, ...]], colours: Colours, indent: str = "  "
) -> Iterator[str]:
    """Rows below a head, each column as wide as it has to be."""
    filled = [head, *rows]
    widths = [max(len(row[column]) for row in filled) for column in range(len(head))]
    for number, row in enumerate(filled):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield indent + (colours.faint(line) if number == 0 else line)


def _hints(explanation: Explanation, request: Request, world: World) -> Iterator[str]:
    """What an author who did not mean it so may have overlooked."""
    decision = explanation.decision
    if request.source not in world:
        yield f"there is no qube {request.source!r}: it is matched as a name only"
    if explanation.target == "@default" and request.target not in ("", "@default"):
        yield f"there is no qube {request.target!r}: a call to it counts as one to @default"
    if isinstance(decision, Allowed):
        if request.service.startswith("admin.") and decision.target != DOM0:
            yield "qubesd refuses it all the same: dom0 carries it out, so the rule needs target=dom0"
        elif decision.target == decision.source:
            yield "it is refused all the same: a qube does not call itself"
    if explanation.demands is not None and explanation.demands.refusal is not None:
        yield f"it is refused all the same: {_WHY[explanation.demands.refusal]}"


def _place(rule: AnyRule) -> str:
    file = harmless(rule.file)
    return file if rule.line is None else f"{file}:{rule.line}"


def _rule_document(rule: AnyRule) -> dict[str, Any]:
    chain = [{"file": inclusion.file, "line": inclusion.line} for inclusion in inclusions(rule)]
    return {"rule": format_rule(rule), "file": rule.file, "line": rule.line, "included_from": chain}


def harmless(text: str) -> str:
    """One printable character for each of the text: policy may be written by those who are not trusted with
    the terminal, and a word of it can hold anything but white space."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def _columns(char: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
