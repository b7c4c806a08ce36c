"""``qrexec-legacy-convert``: the policy of Qubes 4.0 becomes rules in files of today
(``spec/policy-daemon.md`` 11).

What would be decided differently is found out before anything is written. New rules come before old files go,
and are in force as one change of the policy's history; in between all is decided as before and after.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from broker.authoring.options import add_places, add_system_info
from broker.authoring.report import harmless
from broker.catalogue import catalogue
from broker.described import ToolError, described_world
from broker.editing.edits import PolicyEdits, places_of
from broker.editing.entry import Author
from broker.editing.restore import user
from broker.editing.store import PolicyStore
from policy_engine import (
    Conversion,
    DirectorySource,
    Labels,
    Loader,
    PolicyError,
    Rule,
    Scope,
    World,
    called,
    convert,
    graph,
)
from qubesd.config import Config, ConfigError, load
from qubesd.disk import sync
from qubesd.disk import why as reason_of
from qubesd.errors import QubesError
from qubesd.model.state import DOM0

BACKUP = ".bak"

_DESCRIPTION = """\
Turn the policy of Qubes OS 4.0 into rules in files of today.

Rules in /etc/qubes-rpc/policy, which the line "!compat-4.0" has read, go to the
files that the configuration tools show, or to 30-user.policy where those could
not show them. Whatever a rule says is kept, and so is every decision: where the
order of all rules would not let a rule go there, it is put where it can stand,
in the end right before the line "!compat-4.0" itself. What a file holds already
stays behind the new rules, and a copy of the file as it was is kept under its
name with ".bak". The old files are renamed to NAME.rpmsave, which is not read.

First it is found out, for all qubes that there are, what would be decided
differently. That should be nothing; if it is something, it is shown, and you are
asked whether to keep the old state. Broken off at any moment, the command
leaves a policy that decides as before, and finishes when it is given again.
"""
_EPILOG = """\
exit status:
  0  the policy is converted, or there is nothing to convert
  1  the old state was kept, or the policy does not load
  2  called wrongly, or what was asked for is not to be had

files:
  /etc/qubes-rpc/policy
      the policy of Qubes OS 4.0: a file for each service
  /etc/qubes/policy.d
      where the rules go
  /etc/qubes/qubesd.toml
      says where these and qubesd's sockets lie, if that is elsewhere

examples:
  qrexec-legacy-convert --dry-run
  qrexec-legacy-convert
  qrexec-legacy-convert --dry-run --root /mnt/old-dom0 \\
      --system-info system.json

see also:
  qubes-policy(1), qrexec-policy-graph(1), qubes-policy-lint(1)
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``qrexec-legacy-convert``."""
    made = argparse.ArgumentParser(
        prog="qrexec-legacy-convert",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--dry-run", action="store_true", help="show what would be written, and write nothing")
    add_system_info(made)
    add_places(made)
    return made


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Exit status 0: converted; 1: the old state was kept; 2: it is not to be had."""
    options = parser().parse_args(arguments)
    try:
        status = _run(options, load(options.root, options.config))
    except PolicyError as error:
        _complain(f"{error}; nothing was changed, qubes-policy check shows all errors")
        status = 1
    except (ToolError, ConfigError, QubesError) as error:
        _complain(str(error))
        status = 2
    except OSError as error:
        _complain(f"{error.filename}: {reason_of(error)}; give the command again then, and it finishes")
        status = 2
    sys.exit(status)


def _run(options: argparse.Namespace, config: Config) -> int:
    edits = PolicyEdits(places_of(config))
    if not options.dry_run:
        edits.notice()
    conversion = convert(DirectorySource(), _directories(config), str(config.policy_legacy), _known)
    for name in conversion.left:
        _say(f"{config.policy_legacy / name}: stays, rules of today cannot be for a service without a name")
    if not conversion.files and not conversion.aside:
        _say(f"{config.policy_legacy}: nothing to convert")
        return 0
    world = described_world(options.system_info, config)
    if options.dry_run:
        _show(conversion, config)
    gone, come = differences(conversion, world)
    if gone or come:
        _say("decided so before, and not after:", *gone)
        _say("decided so after, and not before:", *come)
        if not options.dry_run and _is_to_be_kept():
            _say("the old state is kept, nothing was changed")
            return 1
    if not options.dry_run:
        _carry_out(conversion, edits, config)
    return 0


def differences(conversion: Conversion, world: World) -> tuple[list[str], list[str]]:
    """What is drawn of the services concerned, with whole rules, before alone and after alone."""
    gone: list[str] = []
    come: list[str] = []
    before, after = conversion.before, conversion.after
    changed = set(before.rules) ^ set(after.rules)
    calls = called(before) | called(after)
    for service in sorted({rule.service for rule in changed if isinstance(rule, Rule)}):
        of_it = sorted(call for call in calls if call.partition("+")[0] == service)
        scope = Scope(services=of_it, asks=True, labels=Labels.WHOLE_RULE)
        old, new = set(graph(before, world, scope)), set(graph(after, world, scope))
        gone += sorted(old - new)
        come += sorted(new - old)
    return gone, come


def _is_to_be_kept() -> bool:
    print("Restore the old state? [Y/n] ", end="", flush=True)
    return not sys.stdin.readline().strip().lower().startswith("n")


def _show(conversion: Conversion, config: Config) -> None:
    for path, content in conversion.files.items():
        old, new = (text.decode().splitlines() for text in (_content(path), content))
        _say(*difflib.unified_diff(old, new, path, path, "as it is", "as it would be", lineterm=""))
    for name, new_name in conversion.aside.items():
        _say(f"{config.policy_legacy / name} would be renamed to {new_name}")


def _carry_out(conversion: Conversion, edits: PolicyEdits, config: Config) -> None:
    loader = Loader(DirectorySource(), _directories(config), str(config.policy_legacy), _known)
    if loader.load().digest != conversion.before.digest:
        raise ToolError("somebody else has changed the policy meanwhile; give the command again")
    store = PolicyStore(config.policy_dir, config.socket_group)
    changes: dict[str, bytes | None] = {}
    for path, content in conversion.files.items():
        changes[os.path.relpath(path, store.directory)] = content
    with store.locked():
        for path in conversion.files:
            _back_up(Path(path), store)
    edits.change(Author(DOM0, user()), changes, "qrexec-legacy-convert")
    for path, origins in conversion.taken.items():
        _say(f"{path}: has the rules of {', '.join(os.path.basename(origin) for origin in origins)}")
    for name, new_name in conversion.aside.items():
        (config.policy_legacy / name).rename(config.policy_legacy / new_name)
        _say(f"{config.policy_legacy / name}: renamed to {new_name}")
    sync(config.policy_legacy)
    if loader.load().rules != conversion.after.rules:
        raise ToolError(
            "the policy is not what it was to be, for somebody else has changed it; look it through"
        )


def _back_up(path: Path, store: PolicyStore) -> None:
    """Keep a copy of a file as it is, if there is a file, under a name that none has."""
    content = _content(str(path))
    if not path.exists():
        return
    name = path.name + BACKUP
    while (store.directory / name).exists():
        if (store.directory / name).read_bytes() == content:
            return  # by a conversion that was broken off
        name += BACKUP
    store.write(name, content)
    _say(f"{path}: kept as {name}")


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b""


def _directories(config: Config) -> list[str]:
    return [str(config.policy_runtime), str(config.policy_dir)]


def _say(*lines: str) -> None:
    for line in lines:
        print(harmless(line))


def _complain(message: str) -> None:
    print(f"qrexec-legacy-convert: {message}", file=sys.stderr)


_known = partial(catalogue, enforced=True)


if __name__ == "__main__":
    main()
