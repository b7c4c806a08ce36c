"""``qubesd``: the core, the policy and the sockets in one process, put together here and nowhere else."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import grp
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from broker.agent import Agents
from broker.allowances import allowance_of, is_kept
from broker.announcements import announcements_in
from broker.asking import Asking
from broker.audit import AuditLog
from broker.channels import Channels
from broker.consent import Consents
from broker.deciding.answering import Answering
from broker.deciding.beforehand import Beforehand
from broker.deciding.sockets import PolicySockets
from broker.deciding.status import PolicyStatus
from broker.dispatch import Dispatcher
from broker.editing.calls import PolicyCalls
from broker.editing.edits import PolicyEdits, places_of
from broker.facts import Facts
from broker.identity import Dom0Door, UserDoor
from broker.limits import raise_descriptor_limit
from broker.logs import set_up
from broker.notify import give_signs_of_life, notify
from broker.operation.doctor import examine
from broker.operation.exposition import Family
from broker.operation.metrics import (
    Collector,
    of_audit,
    of_calls,
    of_policy,
    of_process,
    of_questions,
    of_store,
)
from broker.operation.tally import Tally
from broker.operation.trial import try_store
from broker.preparation import Preparation
from broker.prompter import Prompter
from broker.reload import Reloader, policy_in_force
from broker.root import furnish
from broker.serve import House
from broker.short_answers import ShortAnswers
from broker.sockets import Access, answers
from broker.streams import Streams
from qubesd.api.imports import PROGRAMS
from qubesd.api.table import INTERNAL, METHODS, MISC
from qubesd.config import Config, ConfigError, load, uid_of
from qubesd.core.core import Core
from qubesd.core.exposure import DATABASES
from qubesd.core.installed import installed
from qubesd.core.opening import create_system, open_core
from qubesd.errors import QubesError
from qubesd.extensions.stock import STOCK

_log = logging.getLogger("qubesd")

GRACE = 20.0
"""Seconds that calls which are being carried out get to end when the daemon is told to stop."""

_MIB = 1024 * 1024

_DESCRIPTION = """\
Keep the qubes, and judge every call to them.

qubesd has the qubes, the policy and the sockets of the Admin API in one
process. It carries out admin.* calls that the policy allows, filters what they
list, decides on the calls between qubes that the qrexec daemon asks about, and
writes a line for each call into its audit log. A change of the policy files
comes into force by itself.

It serves until SIGTERM or SIGINT; calls that are being carried out then get 20
seconds to end. SIGHUP has it read the policy again whatever it has seen.

With --root all of it lies below one directory, on a hypervisor that is part of
the process: for development, tests, and several instances on one machine.
"""
_EPILOG = """\
exit status:
  0  a signal has ended it; with --check: the file can be taken over; with
     --doctor: no error was found, though perhaps warnings
  1  it cannot serve, standard error says what is in the way; with --check: the
     file is refused; with --doctor: an error was found
  2  the command line is wrong, or the file of --check cannot be read

files:
  /etc/qubes/qubesd.toml
      where everything lies, and the switches of policy: qubesd.toml(5)
  /etc/qubes/policy.d, /run/qubes/policy.d
      the policy
  /var/lib/qubes/qubes.xml
      the qubes; the unit does not start without it
  /var/run/qubesd.sock
      where dom0 calls
  /var/run/qubes/metrics.sock
      figures for Prometheus, over HTTP
  /var/log/qubes/qubesd-audit.jsonl
      one line of JSON for each call

examples:
  qubesd --root /tmp/trial          a system of its own, empty at first
  qubesd --config /etc/trial.toml
  qubesd --create                   the first system of a new host
  qubesd --check /var/lib/qubes/qubes.xml
  qubesd --doctor --json

see also:
  qubesd.toml(5), qubes-policy(1), qrexec-policy-daemon(8)
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Serve until SIGTERM or SIGINT; exits 1 with a message where that is not possible. SIGHUP reloads the
    policy. Or make or try a store, or examine the host, and serve nothing."""
    made = parser()
    options = made.parse_args(arguments)
    if options.check is not None:
        sys.exit(try_store(options.check, options.json))
    if options.doctor:
        sys.exit(examine(options.root, options.config, options.json))
    if options.json:
        made.error("--json: goes with --check or --doctor")
    try:
        config = load(options.root, options.config)
        if options.create:
            create_system(config)
            print(f"{config.store}: an empty system")
            sys.exit(0)
        set_up("qubesd", config.log_format)
        faulthandler.enable()  # who watches over it aborts it when it hangs, and the log then says where
        if options.root is not None:
            furnish(config)
        raise_descriptor_limit()
        asyncio.run(serve(config, create=options.root is not None))
    except (ConfigError, QubesError) as error:
        sys.exit(f"qubesd: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"qubesd: {where}{error.strerror or error}")
    sys.exit(0)


def parser() -> argparse.ArgumentParser:
    """The command line of ``qubesd``."""
    parser = argparse.ArgumentParser(
        prog="qubesd",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="keep everything below this directory, on the embedded hypervisor; what is missing is made",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration, which must be there (default: /etc/qubes/qubesd.toml, if it is there, "
        "below DIR with --root)",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--create",
        action="store_true",
        help="serve nothing: make an empty system where there is none; one that is there stays as it is",
    )
    instead.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="serve nothing: tell what would become of this qubes.xml, and write nothing",
    )
    instead.add_argument(
        "--doctor",
        action="store_true",
        help="serve nothing: tell what is wrong on this host and what to do, whether a daemon runs or not",
    )
    parser.add_argument("--json", action="store_true", help="answer --check or --doctor in JSON")
    return parser


async def serve(config: Config, create: bool) -> None:
    """Open everything, serve until a signal, close everything.

    Args:
        create: make an empty system where there is none.

    Raises:
        QubesError: the system or the hypervisor cannot be opened.
        ConfigError: the configuration names what this machine does not have.
        OSError: a socket or the audit log cannot be opened.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if answers(config.run_dir / "qubesd.sock"):
        raise FileExistsError(
            17, "another daemon answers on this socket", str(config.run_dir / "qubesd.sock")
        )
    group = _group_id(config.socket_group)
    directories = (str(config.policy_runtime), str(config.policy_dir))
    keep_last_good = config.on_error == "last-good"
    async with (
        announcements_in(config.run_dir / DATABASES) as announcements,
        open_core(config, create, announcements.watch, installed(STOCK, config.run_dir)) as core,
        policy_in_force(directories, str(config.policy_legacy), keep_last_good, enforced=True) as reloader,
    ):
        audit = AuditLog(config.audit_log, config.audit_size * _MIB, config.audit_files, config.audit_days)
        try:
            await _serve_core(core, config, group, audit, reloader, stop)
        finally:
            audit.close()


async def _serve_core(
    core: Core,
    config: Config,
    group: int | None,
    audit: AuditLog,
    reloader: Reloader,
    stop: asyncio.Event,
) -> None:
    strict = config.visibility == "strict"
    policies = reloader.policies
    facts = Facts(core)
    streams = Streams(core, policies, facts)
    core.budgets.allowance_of = partial(allowance_of, policies, facts)
    core.creation.is_kept = partial(is_kept, policies, facts)
    agents = Agents(config.services_dir)
    core.handing_out.ask = agents.place
    prompter = Prompter(agents)
    preparation = Preparation(core, strict, frozenset(name for _, name in config.users))
    asking = Asking(prompter, Consents())
    dispatcher = Dispatcher(
        core,
        policies,
        facts,
        streams,
        audit,
        preparation,
        asking,
        trust_consent=config.trust_qrexec_consent,
    )
    house = House(core, dispatcher)
    beforehand = Beforehand(core, METHODS, PROGRAMS, preparation, asking)
    answering = Answering(policies, facts.world, prompter, audit.refused, beforehand)
    policy_sockets = PolicySockets(answering)

    def families() -> Iterator[Family]:
        yield from of_process("qubesd")
        yield from tally.families()
        yield from of_calls(house, streams)
        yield from of_questions(policy_sockets, prompter)
        yield from of_policy(policies)
        yield from of_store(core.commit)
        yield from of_audit(audit)

    metrics = ShortAnswers(config.metrics_socket, Collector(families))
    policy_calls = PolicyCalls(PolicyEdits(places_of(config)))
    served = {**METHODS, **policy_calls.methods()}
    own_uid = os.geteuid()
    channels = Channels(
        core, house, served, config.channels_dir, own_uid, uid_of(config.channels_owner or str(own_uid))
    )

    reloader.swapped = streams.policy_changed
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.reload)
    services = config.services_dir
    places = config.policy_socket, services / "policy.EvalSimple", services / "policy.EvalGUI"
    other_in_front = config.trust_qrexec_consent
    status = PolicyStatus("qubesd", reloader, () if other_in_front else places).method()
    tally = Tally({**served, **INTERNAL, status.name: status})
    audit.count = tally.count
    config.user_socket.parent.mkdir(parents=True, exist_ok=True)
    dom0_only = Access(0o660, group=group)
    try:
        channels.open()
        users = UserDoor(dict(config.users), own_uid, group)
        users.bind(core.system)
        house.open(config.user_socket, users, served, Access(0o666))
        trusted = Dom0Door(own_uid, group, trusted=True)
        house.open(
            config.run_dir / "qubesd.internal.sock", trusted, {**INTERNAL, status.name: status}, dom0_only
        )
        house.open(config.run_dir / "qubesd.misc.sock", trusted, MISC, dom0_only)
        config.metrics_socket.parent.mkdir(parents=True, exist_ok=True)
        metrics.open(dom0_only)
        # Where another policy daemon is in front, that one is asked.
        if not other_in_front:
            for place in places:
                place.parent.mkdir(parents=True, exist_ok=True)
            policy_sockets.open_all(*places, dom0_only)
        # The one that everybody looks for comes last: when it is there, all are.
        house.open(config.run_dir / "qubesd.sock", Dom0Door(own_uid, group), served, dom0_only)
        _log.info("ready: %s", config.run_dir / "qubesd.sock")
        notify("READY=1")
        give_signs_of_life()
        await stop.wait()
        notify("STOPPING=1")
        _log.info("stopping")
    finally:
        metrics.close()
        await policy_sockets.close()
        await house.close(GRACE)
        policy_calls.close()


def _group_id(name: str) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(
            f"socket_group: no group {name!r} on this machine: make it, or name another"
        ) from None


if __name__ == "__main__":
    main()
