"""``policy.RegisterArgument``: a backend lets one frontend call one of its services with one argument.

The qrexec daemon runs it for the backend (QREXEC_REMOTE_DOMAIN), which names the frontend as the target
(QREXEC_REQUESTED_TARGET), the service as the argument (QREXEC_SERVICE_ARGUMENT), and the new argument of that
service on standard input. A rule for just that is appended to 60-registered-arguments.policy. It exits with
0, or with 1 and a line in the log where there is such a rule already or something is wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import BinaryIO, NoReturn

from broker.policy_edits import PolicyEdits
from broker.policy_entry import Author
from broker.policy_log import logged, place_of
from broker.policy_program import edited
from policy_engine import AnyRule, DelegationRule, Policy
from qubesd.errors import PolicyAdminError, PolicyProtocolError
from qubesd.model.names import check_qube_name

REGISTERED = "60-registered-arguments.policy"

_ARGUMENT = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SERVICE = re.compile(r"[A-Za-z0-9._-]+")

_EXAMPLES = """\
example (what the qrexec daemon does):
  echo -n key-1 | QREXEC_REMOTE_DOMAIN=sys-usb QREXEC_REQUESTED_TARGET=work \\
      QREXEC_SERVICE_ARGUMENT=u2f.Authenticate qubes-policy-register-argument
"""


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="qubes-policy-register-argument",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main() -> NoReturn:
    """Register one argument."""
    if "QREXEC_SERVICE_ARGUMENT" not in os.environ:
        # The command line of a service is its argument, which the caller chose: it is read by people only.
        parser().parse_args()
        parser().error("QREXEC_SERVICE_ARGUMENT is not set: this is run by the qrexec daemon; see --help")
    sys.exit(run(os.environ, sys.stdin.buffer))


def run(environment: Mapping[str, str], payload: BinaryIO) -> int:
    """Register what the environment and the payload tell of; the exit status."""
    try:
        with logged(place_of(environment)) as log:
            return _register(environment, payload.read(65), log)
    except OSError:  # what cannot be logged is not done
        return 1


def _register(environment: Mapping[str, str], untrusted_payload: bytes, log: logging.Logger) -> int:
    backend = environment.get("QREXEC_REMOTE_DOMAIN", "")
    untrusted_frontend = environment.get("QREXEC_REQUESTED_TARGET", "")
    untrusted_service = environment.get("QREXEC_SERVICE_ARGUMENT", "")
    about = ascii((backend, untrusted_frontend, untrusted_service, untrusted_payload))
    try:
        check_qube_name(backend)
        frontend = check_qube_name(untrusted_frontend)
        if not _SERVICE.fullmatch(untrusted_service):
            raise PolicyProtocolError("this is no service")
        if not _ARGUMENT.fullmatch(untrusted_payload):
            raise PolicyProtocolError("this is no argument")
        edits = PolicyEdits(edited(environment))
        register(edits, backend, frontend, untrusted_service, untrusted_payload.decode("ascii"))
    except Exception as error:
        log.error("%s: not registered: %a", about, str(error))
        return 1
    log.info("%s: registered", about)
    return 0


def register(edits: PolicyEdits, backend: str, frontend: str, service: str, argument: str) -> None:
    """Let the frontend call the backend's service with this argument.

    Raises:
        PolicyAdminError: a rule speaks of this very argument already, or the policy cannot be changed.
    """

    def amended(policy: Policy, content: bytes) -> bytes:
        if any(_is_for(rule, service, f"+{argument}") for rule in policy.rules):
            raise PolicyAdminError("there is a rule for this argument already")
        end = b"\n" if content and not content.endswith(b"\n") else b""
        return content + end + f"{service} +{argument} {frontend} {backend} allow\n".encode("ascii")

    edits.amend(Author(backend), REGISTERED, amended, f"policy.RegisterArgument+{service}")


def _is_for(rule: AnyRule, service: str, argument: str) -> bool:
    if isinstance(rule, DelegationRule):
        return service in rule.reach.services.names and argument in rule.reach.arguments.names
    return (rule.service, rule.argument) == (service, argument)


if __name__ == "__main__":
    main()
