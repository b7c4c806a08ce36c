"""``qrexec-policy-daemon``: the policy sockets without a core, for a dom0 whose qubes are kept by a stock
qubesd."""

from __future__ import annotations

import argparse
import asyncio
import grp
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from broker.activation import given_sockets
from broker.agent import Agents
from broker.deciding.answering import Answering
from broker.deciding.sockets import PolicySockets
from broker.deciding.status import PolicyStatus
from broker.deciding.status_socket import StatusSpeaker
from broker.deciding.stock_state import StockState
from broker.limits import raise_descriptor_limit
from broker.notify import give_signs_of_life, notify
from broker.operation.exposition import Family
from broker.operation.metrics import Collector, of_policy, of_process, of_questions
from broker.places import METRICS_SOCKET, POLICY_SOCKET, QUBESD_INTERNAL_SOCKET, SERVICES, STATUS_SOCKET
from broker.prompter import Prompter
from broker.reload import policy_in_force
from broker.short_answers import ShortAnswers
from broker.sockets import Access
from policy_engine import CONFIGURED, LEGACY, RUNTIME

_log = logging.getLogger("qrexec-policy-daemon")

_GROUP = "qubes"


_DESCRIPTION = """\
Decide on the calls between qubes, where a stock qubesd keeps them.

The qrexec daemon of a calling qube asks on the policy socket whether the call
may be made. This daemon reads the policy, asks qubesd for the qubes and, where
a rule says so, the user in the GUI qube of the caller, and answers. A change of
the policy files comes into force by itself; SIGHUP has them read again whatever
was seen. Without a policy that loads it serves, and denies.

It serves until SIGTERM or SIGINT, on sockets that it makes or that systemd
hands over. The options of the stock daemon mean here what they mean there.
"""
_EPILOG = """\
exit status:
  0  a signal has ended it
  1  a socket cannot be opened; standard error says which
  2  the command line is wrong

files:
  /etc/qubes/policy.d, /run/qubes/policy.d
      the policy
  /var/run/qubes/policy.sock
      where the qrexec daemon asks
  /etc/qubes-rpc/policy.EvalSimple, /etc/qubes-rpc/policy.EvalGUI
      where qubes ask what would be decided
  /var/run/qubes/policy-status.sock
      where qubes-policy status asks
  /var/run/qubes/policy-metrics.sock
      figures for Prometheus, over HTTP

examples:
  qrexec-policy-daemon
  qrexec-policy-daemon --policy-path /etc/qubes/policy.d \\
      --socket-path /run/trial/policy.sock

see also:
  qrexec-policy-exec(8), qubes-policy-switch(8), qubes-policy(1), qubesd(8)
"""


def parser() -> argparse.ArgumentParser:
    """The command line: the stock options, and those of ours."""
    parser = argparse.ArgumentParser(
        prog="qrexec-policy-daemon",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    places = (
        ("--socket-path", POLICY_SOCKET, "the socket that the qrexec daemon asks"),
        (
            "--eval-socket-path",
            f"{SERVICES}/policy.EvalSimple",
            "the socket of the service policy.EvalSimple",
        ),
        ("--gui-socket-path", f"{SERVICES}/policy.EvalGUI", "the socket of the service policy.EvalGUI"),
        ("--agent-path", SERVICES, "the folder with policy.Ask and policy.Notify, the agent's sockets"),
        ("--qubesd-socket-path", QUBESD_INTERNAL_SOCKET, "the internal socket of qubesd"),
    )
    parser.add_argument(
        "--policy-path",
        action="append",
        metavar="DIR",
        help=f"a policy directory; the first that is given comes first (default: {RUNTIME}, {CONFIGURED})",
    )
    for option, default, text in places:
        parser.add_argument(
            option, type=Path, default=Path(default), metavar="PATH", help=f"{text} (default: %(default)s)"
        )
    parser.add_argument(
        "--status-socket-path",
        type=Path,
        metavar="PATH",
        help=f"where qubes-policy status asks (default: {STATUS_SOCKET} beside policy.sock)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Serve until SIGTERM or SIGINT; exits 1 with a message where a socket cannot be opened. SIGHUP reloads
    the policy. Without a policy that loads it serves and denies."""
    options = parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    os.umask(0o007)
    raise_descriptor_limit()
    try:
        asyncio.run(serve(options))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"qrexec-policy-daemon: {where}{error.strerror or error}")
    sys.exit(0)


async def serve(options: argparse.Namespace) -> None:
    """Open the sockets, or take those that the service manager gave, and serve until a signal. Raises
    ``OSError`` where one cannot be opened, or is not ours to serve."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    places = options.socket_path, options.eval_socket_path, options.gui_socket_path
    given = given_sockets(places)
    state = StockState(options.qubesd_socket_path)
    directories = options.policy_path or (RUNTIME, CONFIGURED)
    async with policy_in_force(directories, LEGACY, keep_last_good=False, enforced=False) as reloader:
        loop.add_signal_handler(signal.SIGHUP, reloader.reload)
        prompter = Prompter(Agents(options.agent_path))
        sockets = PolicySockets(Answering(reloader.policies, state.world, prompter))
        status_path = options.status_socket_path or options.socket_path.with_name(STATUS_SOCKET)

        def families() -> Iterator[Family]:
            yield from of_process("qrexec-policy-daemon")
            yield from of_policy(reloader.policies)
            yield from of_questions(sockets, prompter)

        telling = (
            ShortAnswers(
                status_path, StatusSpeaker(PolicyStatus("qrexec-policy-daemon", reloader, places).text)
            ),
            ShortAnswers(status_path.with_name(METRICS_SOCKET), Collector(families)),
        )
        dom0_only = Access(0o660, group=_group())
        try:
            for one in telling:
                try:
                    one.open(dom0_only)
                except OSError as error:
                    # What only tells of decisions is no reason to make none.
                    _log.warning("%s: %s: nobody can ask here", one.path, error.strerror)
            sockets.open_all(*places, dom0_only, given)
            _log.info("ready: %s", options.socket_path)
            notify("READY=1")
            give_signs_of_life()
            await stop.wait()
            notify("STOPPING=1")
        finally:
            for one in telling:
                one.close()
            await sockets.close()


def _group() -> int | None:
    if os.geteuid() != 0:
        return None
    try:
        return grp.getgrnam(_GROUP).gr_gid
    except KeyError:
        _log.warning("no group %r on this machine: only root can ask", _GROUP)
        return None


if __name__ == "__main__":
    main()
