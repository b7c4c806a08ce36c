"""``qubes-policy``: for those who write policy, in dom0.

qubes-policy check                              is all of it well formed?
qubes-policy check DIR                          the same for a directory that is not installed yet
qubes-policy explain mgmt admin.vm.Start work   why is it allowed or denied?
qubes-policy status                             what does the running daemon decide by?
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from broker.client import CallError, NoReplyError, call
from broker.colour import Colours
from broker.policy_methods import STATUS
from broker.policy_report import explanation_document, explanation_text, marked_line, status_text
from policy_engine import DirectorySource, Loader, PolicyError, Request, World, WorldError, explain
from qubesd.config import Config, ConfigError, load

_TIMEOUT = 30.0


class ToolError(Exception):
    """What was asked for is not to be had; the text says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Exit status 0: well formed, explained, in force; 1: errors in the policy; 2: it is not to be had."""
    options = arguments_of(arguments)
    try:
        config = load(options.root, options.config)
        status = {"check": _check, "explain": _explain, "status": _status}[options.command](options, config)
    except (ToolError, ConfigError) as error:
        print(f"qubes-policy: {error}", file=sys.stderr)
        status = 2
    except BrokenPipeError:
        # Whoever reads has seen enough, as in `qubes-policy check | head`.
        sys.stderr.close()
        status = 2
    sys.exit(status)


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="qubes-policy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="the directory that qubesd --root was given")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the configuration (default: etc/qubes/qubesd.toml)"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="show every error of every file")
    check.add_argument(
        "directory",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="check this policy directory alone (default: those that are configured)",
    )
    why = commands.add_parser(
        "explain",
        help="show how a call is decided, and why",
        description="How a call is decided by the policy files as they are now.",
        epilog="example: qubes-policy explain mgmt admin.vm.property.Get+label work",
    )
    why.add_argument("source", metavar="SOURCE", help="the calling qube")
    why.add_argument("service", metavar="SERVICE[+ARG]", help="such as admin.vm.Start or qubes.Filecopy")
    why.add_argument("target", metavar="TARGET", help="a qube, @default, @dispvm, @dispvm:NAME or dom0")
    why.add_argument("--json", action="store_true", help="for programs")
    why.add_argument(
        "--system-info",
        type=Path,
        metavar="FILE",
        help="the qubes as internal.GetSystemInfo told of them (default: ask the running qubesd)",
    )
    status = commands.add_parser("status", help="show what the running daemon decides by")
    status.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args(arguments)


def _check(options: argparse.Namespace, config: Config) -> int:
    source, colours = DirectorySource(), Colours.of(sys.stdout)
    directories = _directories(config) if options.directory is None else [str(options.directory.absolute())]
    loader = Loader(source, directories, str(config.policy_legacy))
    errors = loader.check()
    for error in errors:
        print(error)
        _print(marked_line(error, source, colours))
    if errors:
        number = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        print(f"{colours.bad(number)}; with an error in any file, none of the policy comes into force")
        return 1
    try:
        policy = loader.load()
    except PolicyError as error:
        raise ToolError(f"the files changed while they were checked: {error}; check again") from error
    for warning in policy.warnings:
        print(colours.odd("warning"), warning)
    print(f"{colours.good('ok')}: {len(policy.rules)} rules in {len(policy.files)} files")
    return 0


def _explain(options: argparse.Namespace, config: Config) -> int:
    try:
        policy = Loader(DirectorySource(), _directories(config), str(config.policy_legacy)).load()
    except PolicyError as error:
        message = f"{error}\nevery judged call is denied until the policy loads; try qubes-policy check"
        print(f"qubes-policy: {message}", file=sys.stderr)
        return 1
    world = _world(options.system_info, config)
    request = Request.of(options.service, options.source, options.target)
    explanation = explain(policy, request, world)
    if options.json:
        print(json.dumps(explanation_document(explanation, request), indent=1))
    else:
        _print(explanation_text(explanation, request, world, Colours.of(sys.stdout)))
    return 0


def _status(options: argparse.Namespace, config: Config) -> int:
    status = json.loads(_ask(config, STATUS))
    if options.json:
        print(json.dumps(status, indent=1))
    else:
        _print(status_text(status, Colours.of(sys.stdout)))
    return 0 if status["error"] is None else 1


def _directories(config: Config) -> list[str]:
    return [str(config.policy_runtime), str(config.policy_dir)]


def _world(file: Path | None, config: Config) -> World:
    if file is None:
        place, content = str(_socket(config)), _ask(config, "internal.GetSystemInfo")
    else:
        try:
            place, content = str(file), file.read_bytes()
        except OSError as error:
            raise ToolError(f"{file}: {error.strerror}") from error
    try:
        document = json.loads(content)
        if not isinstance(document, dict):
            raise WorldError("expected an object")
        return World.from_system_info(document)
    except (ValueError, WorldError) as error:
        raise ToolError(f"{place}: not a description of the qubes: {error}") from error


def _socket(config: Config) -> Path:
    return config.run_dir / "qubesd.internal.sock"


def _ask(config: Config, service: str) -> bytes:
    place = _socket(config)
    try:
        return call(place, service, timeout=_TIMEOUT)
    except PermissionError as error:
        raise ToolError(f"{place}: permission denied; only dom0 may ask: be root, or in its group") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ToolError(f"{place}: nobody answers; is qubesd running, and is this dom0?") from error
    except OSError as error:
        raise ToolError(f"{place}: {error.strerror or error}") from error
    except (CallError, NoReplyError) as error:
        raise ToolError(f"{place}: {service} is not answered: {error}; is this a stock qubesd?") from error


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


if __name__ == "__main__":
    main()
