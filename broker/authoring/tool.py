"""``qubes-policy``: for those who write policy, in dom0."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from broker.authoring import files
from broker.authoring.archives import backup, restore
from broker.authoring.command_line import parser
from broker.authoring.desk import desk_of, edits_of
from broker.authoring.editing import edit_named
from broker.authoring.keeping import entry_differences, history, rollback
from broker.authoring.meaning import amounts
from broker.authoring.outcome import Command, carried_out
from broker.authoring.payload import particulars_of
from broker.authoring.preview import Previews
from broker.authoring.report import explanation_document, explanation_text, marked_line, status_text
from broker.authoring.trial import dry_run
from broker.catalogue import catalogue
from broker.client import CallError, NoReplyError
from broker.colour import Colours
from broker.deciding.status import STATUS
from broker.described import NOT_ALLOWED, ToolError, described_world, internal_socket
from broker.editing.names import file_named
from broker.internal import ask
from broker.places import STATUS_SOCKET, TRIAL
from broker.sockets import answers
from policy_engine import (
    Allowance,
    Denied,
    DirectorySource,
    Loader,
    PolicyError,
    PolicySource,
    Request,
    allowance,
    confirm,
    explain,
)
from qubesd.config import Config

STATUS_PATIENCE = 5.0
"""Seconds that all daemons together may take to tell what they decide by."""

MAX_STATUS = 16 * 1024 * 1024
"""Bytes of one such answer."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Exit status 0: done, well formed, explained, in force; 1: refused, errors in the policy; 2: it is not
    to be had."""
    made = parser()
    options = made.parse_args(arguments)
    if options.command is not None and files.is_stock(options):
        made.error("an option of the stock program and a command: one of them says what to do")
    carried_out(_COMMANDS[options.command], options, "qubes-policy")


def _check(options: argparse.Namespace, config: Config) -> int:
    source, colours = DirectorySource(), Colours.of(sys.stdout)
    directories = _directories(config) if options.directory is None else [str(options.directory.absolute())]
    loader = _loader(source, directories, config, enforced=not options.alone)
    errors = loader.check()
    try:
        policy = loader.load()
    except PolicyError as error:
        if not errors:
            raise ToolError(f"the files changed while they were checked: {error}; check again") from error
        outcome, warnings = "with an error in any file, none of the policy comes into force", list[str]()
    else:
        # What is wrong closes frames. A framed file that is not there yet is no mistake, and has a warning.
        errors = [error for error in errors if error.kind != "not-a-file"]
        outcome = "only what is in a closed frame is denied, the rest is in force"
        told = {str(error) for error in errors}
        closed = {str(frame): frame.outcome for frame in policy.closed if str(frame.error) in told}
        warnings = [closed.get(warning, warning) for warning in policy.warnings]
    for found in errors:
        print(found)
        _print(marked_line(found, source, colours))
    for warning in warnings:
        print(colours.odd("warning"), warning)
    if errors:
        number = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        print(f"{colours.bad(number)}; {outcome}")
        return 1
    print(f"{colours.good('ok')}: {len(policy.rules)} rules in {len(policy.files)} files")
    return 0


def _loader(
    source: PolicySource, directories: Sequence[str], config: Config, enforced: bool = True
) -> Loader:
    """As a daemon of this configuration reads its policy, ``enforced`` as of ``Catalogue``."""
    return Loader(source, directories, str(config.policy_legacy), partial(catalogue, enforced=enforced))


def _explain(options: argparse.Namespace, config: Config) -> int:
    try:
        policy = _loader(DirectorySource(), _directories(config), config).load()
    except PolicyError as error:
        message = f"{error}\nevery judged call is denied until the policy loads; try qubes-policy check"
        print(f"qubes-policy: {message}", file=sys.stderr)
        return 1
    world = described_world(options.system_info, config)
    request = Request.of(options.service, options.source, options.target, options.requested_source)
    explanation = explain(policy, request, world)
    if options.value and not isinstance(explanation.decision, Denied):
        about = particulars_of(options.value, request)
        explanation = replace(
            explanation, decision=confirm(policy, explanation.decision, request, about, world)
        )
    held = None if isinstance(explanation.decision, Denied) else allowance(policy, request.source, world)
    if options.json:
        limits = None if held is None else asdict(held)
        print(json.dumps({**explanation_document(explanation, request), "limits": limits}, indent=1))
    else:
        _print(explanation_text(explanation, request, world, Colours.of(sys.stdout)))
        if held not in (None, Allowance()) and request.service.startswith("admin."):
            print(f"\nOf what it creates, {request.source} may have {amounts(held)}.")
    return 0


def _status(options: argparse.Namespace, config: Config) -> int:
    statuses, silent = asyncio.run(_gather(config))
    if options.json:
        print(json.dumps({"daemons": statuses, "silent": silent}, indent=1))
    else:
        _print(status_text(statuses, Colours.of(sys.stdout)))
    for place, reason in silent.items():
        print(f"qubes-policy: {place}: {reason}", file=sys.stderr)
    if not statuses:
        raise ToolError(_who_else(config))
    return 0 if all(status["error"] is None for status in statuses) else 1


async def _gather(config: Config) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What the daemons that run here tell, and why others that run do not, by their sockets."""
    qubesd = internal_socket(config)
    alone = config.policy_socket.with_name(STATUS_SOCKET)
    places = (qubesd, alone, config.run_dir / TRIAL / STATUS_SOCKET)
    told = await asyncio.gather(*(_status_of(place) for place in places))
    statuses = [one for one in told if isinstance(one, dict)]
    silent = {str(place): one for place, one in zip(places, told, strict=True) if isinstance(one, str)}
    return statuses, silent


async def _status_of(place: Path) -> dict[str, Any] | str | None:
    """What a daemon tells, why it does not, or ``None`` where none runs."""
    try:
        status = json.loads(await ask(place, STATUS, STATUS_PATIENCE, MAX_STATUS))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        return NOT_ALLOWED
    except OSError as error:
        return str(error.strerror or error)
    except (CallError, NoReplyError, ValueError) as error:
        return f"{STATUS} is not answered: {error}; a stock qubesd does not know it"
    return status if isinstance(status, dict) and "digest" in status else f"{STATUS} is answered by another"


def _who_else(config: Config) -> str:
    """Who decides where no daemon of ours tells that it does."""
    place = config.policy_socket
    try:
        taken = answers(place)
    except OSError as error:
        return f"{place}: {error.strerror}"
    if taken:
        return (
            f"{place}: who listens does not tell what it decides by: the stock daemon, or ours before it runs"
        )
    return (
        f"{place}: nobody answers, neither qubesd nor qrexec-policy-daemon runs: each call is decided by "
        "qrexec-policy-exec, which reads the files anew"
    )


def _directories(config: Config) -> list[str]:
    return [str(config.policy_runtime), str(config.policy_dir)]


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _set(options: argparse.Namespace, config: Config) -> int:
    desk, content = desk_of(config), files.content_of(options)
    if options.dry_run:
        return dry_run(desk, _previews(options, config), file_named(options.name), content, options.token)
    return files.replace(desk, options.name, content, options.token)


def _remove(options: argparse.Namespace, config: Config) -> int:
    desk = desk_of(config)
    if options.dry_run:
        return dry_run(desk, _previews(options, config), file_named(options.name), None, options.token)
    return files.remove(desk, options.name, options.token)


def _previews(options: argparse.Namespace, config: Config) -> Previews:
    return Previews(config, Colours.of(sys.stdout), options.system_info)


def _history(options: argparse.Namespace, config: Config) -> int:
    edits, colours = edits_of(config), Colours.of(sys.stdout)
    if options.entry is None:
        return history(edits, options.json, colours)
    return entry_differences(edits, options.entry, colours)


def _rollback(options: argparse.Namespace, config: Config) -> int:
    return rollback(edits_of(config), options.entry, options.yes, _previews(options, config))


def _backup(options: argparse.Namespace, config: Config) -> int:
    return backup(edits_of(config), options.archive, options.frame)


def _restore(options: argparse.Namespace, config: Config) -> int:
    return restore(edits_of(config), options.archive, options.frame, options.yes, _previews(options, config))


_COMMANDS: Mapping[str | None, Command] = {
    None: lambda options, config: files.stock(options, desk_of(config)),
    "check": _check,
    "explain": _explain,
    "status": _status,
    "list": lambda options, config: files.names(desk_of(config), options.folder),
    "include/": lambda options, config: files.names(desk_of(config), options.folder),
    "get": lambda options, config: files.get(desk_of(config), options.name, options.token),
    "set": _set,
    "remove": _remove,
    "edit": edit_named,
    "history": _history,
    "rollback": _rollback,
    "backup": _backup,
    "restore": _restore,
}

if __name__ == "__main__":
    main()
