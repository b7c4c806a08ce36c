"""``policy.RegisterArgument``: a backend lets one frontend call one of its services with one argument."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import BinaryIO, NoReturn

from broker.editing.edits import PolicyEdits
from broker.editing.entry import Author
from broker.editing.run_for_a_qube import edited, logged, only_for_a_qube, place_of
from policy_engine import AnyRule, DelegationRule, Policy
from qubesd.errors import PolicyAdminError, PolicyProtocolError
from qubesd.model.names import check_qube_name

REGISTERED = "60-registered-arguments.policy"

_ARGUMENT = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SERVICE = re.compile(r"[A-Za-z0-9._-]+")

_DESCRIPTION = """\
Let one qube call one service of the calling qube with one argument.

It is the service policy.RegisterArgument, which the qrexec daemon runs in dom0
for a backend. A rule for just that is appended to the registered arguments, if
there is none yet.
"""
_EPILOG = """\
exit status:
  0  done
  1  there is such a rule already, or something is wrong; the log says what

environment:
  QREXEC_REMOTE_DOMAIN
      the calling qube, the backend
  QREXEC_REQUESTED_TARGET
      the qube that may call it
  QREXEC_SERVICE_ARGUMENT
      the service; its new argument is on standard input
  QREXEC_POLICY_DIR
      another policy directory than the configured one
  QREXEC_POLICY_ADMIN_LOG
      another log

files:
  /etc/qubes/policy.d/60-registered-arguments.policy
      the rules
  /etc/qubes-rpc/policy.RegisterArgument
      the link by which the qrexec daemon finds it
  /var/log/qubes/policy-admin.log
      each call, and what became of it

examples:
  echo -n key-1 | QREXEC_REMOTE_DOMAIN=sys-usb QREXEC_REQUESTED_TARGET=work \\
      QREXEC_SERVICE_ARGUMENT=u2f.Authenticate qubes-policy-register-argument

see also:
  qubes-policy-admin(8), qubes-policy(1)
"""


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="qubes-policy-register-argument",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main() -> NoReturn:
    """Register one argument."""
    only_for_a_qube("QREXEC_SERVICE_ARGUMENT", parser())
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
