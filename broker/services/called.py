"""What a program of dom0 knows when the qrexec daemon runs it for a qube: who calls whom, and its words.

The environment is the daemon's; the one word on the command line is the service's argument, and the caller
chose it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from qubesd.errors import ProtocolError
from qubesd.model.names import check_qube_name, check_uuid
from qubesd.model.state import DOM0

SOURCE = "QREXEC_REMOTE_DOMAIN"
"""The variable that has the name of the calling qube."""

_UUID = "uuid:"


class Called(NamedTuple):
    """Who calls, and whom: a qube's name, or ``uuid:`` and its uuid."""

    source: str
    target: str


def called(environment: Mapping[str, str]) -> Called:
    """The call that this program was run for.

    Raises:
        ProtocolError: the environment does not say; nobody else is to run it.
        BadValue, InvalidUuid: the target is no name and no uuid.
    """
    source = environment.get(SOURCE)
    if environment.get("QREXEC_REQUESTED_TARGET_TYPE") == "keyword":
        untrusted_target = {"adminvm": DOM0}.get(environment.get("QREXEC_REQUESTED_TARGET_KEYWORD", ""))
    else:
        untrusted_target = environment.get("QREXEC_REQUESTED_TARGET")
    if not source or not untrusted_target:
        raise ProtocolError("this program is run by the qrexec daemon, which says who calls and whom")
    if untrusted_target.startswith(_UUID):
        return Called(source, _UUID + check_uuid(untrusted_target.removeprefix(_UUID)))
    return Called(source, check_qube_name(untrusted_target))


class ServiceParser(argparse.ArgumentParser):
    """Reads the command line. A word that is not as it should be is the caller's, who gets an answer for it:
    ``ProtocolError``, where other programs print how they are used.

    Args:
        for_a_qube: whether the qrexec daemon runs the program; then ``--help`` is a word as wrong as others.
    """

    def __init__(self, prog: str, description: str, epilog: str, for_a_qube: bool) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=not for_a_qube,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise ProtocolError(message)
