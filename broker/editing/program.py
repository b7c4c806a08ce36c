"""``qubes-policy-admin``: the Policy Admin API as a program, with the stock answers and exit statuses."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from typing import BinaryIO, NoReturn

from broker.editing.admin import LONGEST_TOKEN, answer
from broker.editing.edits import PolicyEdits
from broker.editing.entry import Author
from broker.editing.run_for_a_qube import edited, logged, only_for_a_qube, place_of
from policy_engine import MAX_FILE
from qubesd.errors import PolicyAdminError

_DESCRIPTION = """\
Answer one call of the Policy Admin API.

The qrexec daemon runs it in dom0 under the names of its services and tells it by
the environment who calls and what. The payload is its standard input, the answer
its standard output. People edit the policy with qubes-policy.

  policy.List, policy.include.List
      the names of the files
  policy.Get, policy.include.Get
      the token of the file in the argument, and its content
  policy.Replace, policy.include.Replace
      make what follows the line with the token the content of the file
  policy.Remove, policy.include.Remove
      take the file with this token away
  policy.GetFiles
      the files with rules for the service in the argument
"""
_EPILOG = """\
exit status:
  0  done, with the answer
  1  refused; the class of the error and its message are on standard error
  2  something went wrong that only the log tells of

environment:
  QREXEC_REMOTE_DOMAIN
      the calling qube
  QREXEC_SERVICE_FULL_NAME
      the service with its argument
  QREXEC_POLICY_DIR
      another policy directory than the configured one
  QREXEC_POLICY_ADMIN_LOG
      another log

files:
  /etc/qubes/policy.d
      the policy
  /etc/qubes-rpc/policy.List
      and so on: the links by which the qrexec daemon finds it
  /var/log/qubes/policy-admin.log
      each call, and what became of it

examples:
  QREXEC_REMOTE_DOMAIN=mgmt QREXEC_SERVICE_FULL_NAME=policy.Get+30-user \\
      qubes-policy-admin

see also:
  qubes-policy(1), qubes-policy-register-argument(8), qubesd(8)
"""


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="qubes-policy-admin",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main() -> NoReturn:
    """Answer one call."""
    only_for_a_qube("QREXEC_SERVICE_FULL_NAME", parser())
    sys.exit(run(os.environ, sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer))


def run(environment: Mapping[str, str], payload: BinaryIO, output: BinaryIO, errors: BinaryIO) -> int:
    """Answer the call that the environment tells of; the exit status."""
    place = place_of(environment)
    try:
        with logged(place) as log:
            return _answer(environment, payload, output, errors, log)
    except Exception:
        errors.write(f"the call was not carried out: see {place}".encode())
        return 2


def _answer(
    environment: Mapping[str, str],
    payload: BinaryIO,
    output: BinaryIO,
    errors: BinaryIO,
    log: logging.Logger,
) -> int:
    """Raises whatever goes wrong that the caller may not know of, after it is in the log."""
    caller = environment.get("QREXEC_REMOTE_DOMAIN", "")
    called = environment.get("QREXEC_SERVICE_FULL_NAME", "")
    service, _, untrusted_argument = called.partition("+")
    try:
        if not caller:
            raise ValueError("QREXEC_REMOTE_DOMAIN is not set")
        edits = PolicyEdits(edited(environment))
        untrusted_payload = payload.read(MAX_FILE + LONGEST_TOKEN + 2)
        answered = answer(edits, Author(caller), service, untrusted_argument, untrusted_payload)
    except PolicyAdminError as error:
        log.warning("%a %a: %s %a", caller, called, error.wire_name, str(error))
        errors.write(f"{error.wire_name} {error}".encode("utf-8", "backslashreplace"))
        return 1
    except Exception as error:
        log.exception("%a %a broke off: %a", caller, called, str(error))
        raise
    log.info("%a %a: done", caller, called)
    output.write(answered)
    output.flush()
    return 0


if __name__ == "__main__":
    main()
