"""The log of the programs that the qrexec daemon runs for calls about the policy: each call is in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

LOG = "/var/log/qubes/policy-admin.log"


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
