"""``qrexec-policy-exec``: what the C qrexec daemon runs, and obeys, where it got no good answer over the
policy socket (``spec/policy-daemon.md`` 5).

Whatever goes wrong is a denial. It asks the policy daemon, and decides by itself only where none runs; the
engine is imported only then, since a call waits for this program to start.
"""

from __future__ import annotations

import argparse
import socket
import sys
import syslog
from collections.abc import Sequence
from typing import NoReturn

from broker.deciding.response import ALLOW, DENY, MAX_RESPONSE, Refused, fields_of
from broker.places import POLICY_SOCKET, QUBESD_INTERNAL_SOCKET, QUBESD_SOCKET, SERVICES

PATIENCE = 15 * 60.0
"""Seconds to wait for the policy daemon: longer than it lets the user think."""

_DESCRIPTION = """\
Decide on one qrexec call where the policy socket gave no good answer.

The qrexec daemon runs this program and obeys it. It asks the policy daemon, and
decides by itself, from the policy files, only where none runs. Whatever goes
wrong is a denial, with the reason in the system's log.

SOURCE is the calling qube, TARGET what it calls, empty for @default, and
SERVICE+ARG the service with its argument. The response is printed, in the form
that the qrexec daemon reads. In the old form, with the caller's DOMAIN_ID and
PROCESS_IDENT, a call that is allowed is also carried out.
"""
_EPILOG = """\
exit status:
  0  allowed
  1  denied, for whatever reason
  2  the command line is wrong

files:
  /var/run/qubes/policy.sock
      where the policy daemon is asked
  /etc/qubes/policy.d, /run/qubes/policy.d
      the policy, where no daemon runs

examples:
  qrexec-policy-exec work vault qubes.Gpg+
  qrexec-policy-exec --just-evaluate -- work @default qubes.OpenURL+

see also:
  qrexec-policy-daemon(8), qubes-policy(1), qubes-policy-switch(8)
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Print the response, and exit with 0 for an allow and 1 for a denial; with 2 if called wrongly."""
    options = arguments_of(arguments)
    syslog.openlog("qrexec-policy-exec", syslog.LOG_PID, syslog.LOG_DAEMON)
    try:
        response = decide(options)
        if options.call is not None and not options.just_evaluate:
            from broker.deciding.carry import carry_out

            # Ends this program unless something is wrong.
            carry_out(options, fields_of(response))
    except Refused as refusal:
        _log(f"denied: {refusal}")
        response = DENY
    except Exception as error:
        # Whatever this is, it must not look like an answer.
        _log(f"denied: {type(error).__name__}: {error}")
        response = DENY
    if not options.just_evaluate:
        print(response)
    sys.exit(0 if ALLOW in response.split("\n") else 1)


def decide(options: argparse.Namespace) -> str:
    """The response to what the options ask, which the C qrexec daemon will understand. Raises ``Refused``."""
    request = request_of(options)
    response = None
    if options.path is None:
        response = ask_daemon(options.socket_path, request)
    if response is None:
        from broker.deciding.alone import decide_alone

        response = decide_alone(options)
    if response not in (ALLOW, DENY) if options.just_evaluate else fields_of(response)["result"] == "deny":
        if response != DENY:
            raise Refused(f"not an evaluation: {response[:80]!a}")
        return DENY
    return response


def request_of(options: argparse.Namespace) -> bytes:
    """What the policy daemon is asked. Raises ``Refused`` where a word would be more than a value there."""
    pairs = {
        "source": options.source,
        "intended_target": options.target,
        "service_and_arg": options.service,
        "assume_yes_for_ask": "yes" if options.assume_yes_for_ask else "no",
        "just_evaluate": "yes" if options.just_evaluate else "no",
    }
    for untrusted_value in pairs.values():
        if not untrusted_value.isascii() or "\n" in untrusted_value:
            raise Refused(f"a value with a line end or outside ASCII: {untrusted_value[:80]!a}")
    return "".join(f"{key}={value}\n" for key, value in pairs.items()).encode("ascii") + b"\n"


def ask_daemon(path: str, request: bytes) -> str | None:
    """The daemon's words; ``None`` where no daemon runs. Raises ``Refused`` where one answers badly."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        response = bytearray()
        try:
            connection.sendall(request)
            while len(response) <= MAX_RESPONSE and (data := connection.recv(MAX_RESPONSE + 1)):
                response += data
        except OSError as error:
            raise Refused(f"{path}: {error}") from error
    if not 0 < len(response) <= MAX_RESPONSE or not response.isascii():
        raise Refused(f"{path}: {len(response)} bytes that are no response")
    return response.decode("ascii")


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, and the words as ``source``, ``target``, ``service`` and ``call``: the caller's domain id
    and process of the old form, ``None`` in the new one. Exits with 2 where they are wrong."""
    program = parser()
    options = program.parse_args(arguments)
    match options.words:
        case [source, target, service]:
            call = None
        case [domain, source, target, service, process]:
            call = domain, process
        case words:
            program.error(f"expected 3 or 5 arguments, found {len(words)}")
    options.source, options.target, options.service, options.call = source, target, service, call
    return options


def parser() -> argparse.ArgumentParser:
    """The command line, its words as ``words``."""
    parser = argparse.ArgumentParser(
        prog="qrexec-policy-exec",
        usage="%(prog)s [OPTIONS] [DOMAIN_ID] SOURCE TARGET SERVICE+ARG [PROCESS_IDENT]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--assume-yes-for-ask", action="store_true", help="take a question to the user as answered with yes"
    )
    parser.add_argument(
        "--just-evaluate", action="store_true", help="print nothing, and tell by the exit status"
    )
    parser.add_argument("--path", metavar="DIR", help="decide by the policy of this directory alone")
    for option, default, text in (
        ("--socket-path", POLICY_SOCKET, "the socket of the policy daemon"),
        ("--qubesd-socket-path", QUBESD_SOCKET, "where qubesd is told to start a qube"),
        ("--qubesd-internal-socket-path", QUBESD_INTERNAL_SOCKET, "where qubesd tells of the qubes"),
        ("--agent-path", SERVICES, "the folder with policy.Ask and policy.Notify, the agent's sockets"),
    ):
        parser.add_argument(option, metavar="PATH", default=default, help=f"{text} (default: %(default)s)")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    return parser


def _log(message: str) -> None:
    syslog.syslog(syslog.LOG_WARNING, ascii(message)[1:-1])


if __name__ == "__main__":
    main()
