"""``qubesd --doctor``: what is wrong on this host, and what to do. It changes nothing, and works whether the
daemon runs or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from broker.operation import daemons, disks, files, machine, policies
from broker.operation.finding import Finding, Level, error, ok
from broker.saying import plain
from qubesd.config import Config, ConfigError, load, place_of

WELL, ILL = 0, 1
"""Exit statuses: no error was found, though there may be warnings; and one was."""


def examine(root: Path | None, file: Path | None, as_json: bool) -> int:
    """Print what is found on this host; the exit status."""
    found = list(findings(root, file))
    if as_json:
        print(json.dumps([one._asdict() for one in found]))
    else:
        for one in found:
            print(f"{one.level:8}{one.about:12}{plain(one.what)}")
            if one.do:
                print(f"{'':20}do: {plain(one.do)}")
        counts = {level: sum(one.level is level for one in found) for level in Level}
        print(", ".join(f"{count} {level}" for level, count in counts.items()))
    return ILL if any(one.level is Level.ERROR for one in found) else WELL


def findings(root: Path | None, file: Path | None) -> Iterator[Finding]:
    """All that is looked at, in the order in which to mend it."""
    try:
        config = load(root, file)
    except ConfigError as problem:
        yield error("config", str(problem), "mend it: see qubesd.toml(5); then run this again")
        return
    yield ok("config", f"visibility {config.visibility}, on_error {config.on_error}")
    yield from files.files(config, place_of(root, file))
    yield from _of(config)


def _of(config: Config) -> Iterator[Finding]:
    yield files.clock((config.store, config.audit_log))
    yield from machine.account(config)
    yield from disks.folders(config)
    yield from disks.room(config)
    finding, outcome = disks.store(config)
    yield finding
    yield from policies.policy(config)
    yield machine.hypervisor(config)
    yield from machine.programs(config, outcome)
    yield from machine.limits(outcome)
    yield from daemons.daemons(config)
