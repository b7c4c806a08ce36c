"""What the programs share that the qrexec daemon runs for calls about the policy: what their environment
tells, and the log with each call."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from broker.editing.edits import Places, elsewhere
from qubesd.config import load

LOG = "/var/log/qubes/policy-admin.log"


def only_for_a_qube(variable: str, parser: argparse.ArgumentParser) -> None:
    """Go on only where the qrexec daemon has set this variable; people are told what the program is.

    The command line of a service is its argument, which the caller chose: it is read by people only.
    """
    if variable not in os.environ:
        parser.parse_args()
        parser.error(f"{variable} is not set: this is run by the qrexec daemon; see --help")


def edited(environment: Mapping[str, str]) -> Places:
    """The policy that the program is to edit. Raises ``ConfigError``."""
    config = load()
    directory = environment.get("QREXEC_POLICY_DIR")
    return elsewhere(Path(directory) if directory else config.policy_dir, config)


def place_of(environment: Mapping[str, str]) -> str:
    return environment.get("QREXEC_POLICY_ADMIN_LOG", LOG)


@contextmanager
def logged(place: str) -> Iterator[logging.Logger]:
    """A log at this place, one line an entry whatever callers chose. Raises ``OSError``."""
    handler = logging.FileHandler(place, encoding="ascii", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.Logger("policy-admin", logging.INFO)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()
