"""``qubes-policy-admin``: the Policy Admin API as a program, with the stock answers and exit statuses.

The qrexec daemon runs it under the names of its services (/etc/qubes-rpc/policy.List and so on) and tells it
by the environment who calls and what: QREXEC_SERVICE_FULL_NAME, QREXEC_REMOTE_DOMAIN. The payload is its
standard input. QREXEC_POLICY_DIR names another policy directory than the configured one,
QREXEC_POLICY_ADMIN_LOG another log than /var/log/qubes/policy-admin.log.

It exits with 0 and the answer; with 1 and, on standard error, the class of the error and its message; with 2
where something went wrong that only the log tells of.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn

from broker.policy_admin import LONGEST_TOKEN, answer
from broker.policy_edits import Places, PolicyEdits, elsewhere
from broker.policy_entry import Author
from broker.policy_log import logged, place_of
from policy_engine import MAX_FILE
from qubesd.config import load
from qubesd.errors import PolicyAdminError

_EXAMPLES = """\
examples (what the qrexec daemon does):
  QREXEC_REMOTE_DOMAIN=mgmt QREXEC_SERVICE_FULL_NAME=policy.List qubes-policy-admin
  QREXEC_REMOTE_DOMAIN=mgmt QREXEC_SERVICE_FULL_NAME=policy.Get+30-user qubes-policy-admin

People edit the policy with qubes-policy.
"""


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="qubes-policy-admin",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main() -> NoReturn:
    """Answer one call."""
    if "QREXEC_SERVICE_FULL_NAME" not in os.environ:
        # The command line of a service is its argument, which the caller chose: it is read by people only.
        parser().parse_args()
        parser().error("QREXEC_SERVICE_FULL_NAME is not set: this is run by the qrexec daemon; see --help")
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


def edited(environment: Mapping[str, str]) -> Places:
    """The policy that the program is to edit. Raises ``ConfigError``."""
    config = load()
    directory = environment.get("QREXEC_POLICY_DIR")
    return elsewhere(Path(directory) if directory else config.policy_dir, config)


if __name__ == "__main__":
    main()
