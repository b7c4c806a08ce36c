"""The old form of ``qrexec-policy-exec``: a call that was allowed is carried out here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import NoReturn

from broker.client import CallError, NoReplyError, call
from broker.deciding.response import Refused
from broker.places import QREXEC_CLIENT
from broker.wire import FramingError

_DISPOSABLE = "@dispvm:"


def carry_out(options: argparse.Namespace, fields: Mapping[str, str]) -> NoReturn:
    """Start the target and become the client that connects both ends. Raises ``Refused``."""
    if fields["result"] != "allow":
        raise Refused("by policy")
    target = _started(options.qubesd_socket_path, fields["target"], fields["autostart"] == "True")
    command = command_of(options, fields, target)
    try:
        os.execv(command[0], command)
    except OSError as error:
        raise Refused(f"{command[0]}: {error.strerror}") from error


def command_of(options: argparse.Namespace, fields: Mapping[str, str], target: str) -> list[str]:
    """The client's command line."""
    called = f"QUBESRPC {fields.get('service', options.service)} {options.source}"
    if target == "dom0":
        requested = fields["requested_target"]
        kind = "keyword" if requested.startswith("@") else "name"
        called = f"{called} {kind} {requested.removeprefix('@')}"
    else:
        called = f"{fields['user']}:{called}"
    switches = "-EWkd" if fields["target"].startswith(_DISPOSABLE) else "-Ed"
    domain, process = options.call
    ends = f"{process},{options.source},{domain}"
    return [QREXEC_CLIENT, switches, target, "-c", ends, "--", called]


def _started(path: str, target: str, autostart: bool) -> str:
    """The qube to call, running: a new one where it is to be a disposable."""
    try:
        if target.startswith(_DISPOSABLE):
            base = target.removeprefix(_DISPOSABLE)
            target = call(path, "admin.vm.CreateDisposable", base, payload=b"uuid").decode("ascii")
        elif target == "dom0" or not autostart:
            return target
        call(path, "admin.vm.Start", target, timeout=None)
    except CallError as error:
        if error.kind != "QubesVMNotHaltedError":
            raise Refused(f"{target}: {error}") from error
    except (NoReplyError, FramingError, OSError) as error:
        raise Refused(f"{target}: {error}") from error
    return target
