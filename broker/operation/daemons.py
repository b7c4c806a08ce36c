"""What the doctor sees of the daemons: who answers on which socket, who is in front, who asks the user."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import struct
from collections.abc import Generator, Iterator
from pathlib import Path

from broker.client import CallError, NoReplyError
from broker.deciding.status import STATUS
from broker.internal import ask
from broker.operation.files import holder
from broker.operation.finding import Finding, error, ok, warning
from broker.operation.process import Process, named
from broker.sockets import answers, short_path
from qubesd.config import Config
from qubesd.disk import reason

PATIENCE = 5.0
"""Seconds that the daemon may take to tell what it decides by."""

_MOST = 16 * 1024 * 1024
_CREDENTIALS = struct.Struct("3i")


def daemons(config: Config) -> Iterator[Finding]:
    """qubesd, whoever decides on the calls between qubes, and the agent of dom0."""
    own, is_ours = _listener(config.run_dir / "qubesd.sock"), False
    if own is None:
        yield warning(
            "qubesd",
            f"{config.run_dir / 'qubesd.sock'}: nobody answers",
            "systemctl start qubesd.service; journalctl -u qubesd.service tells why it does not start",
        )
    else:
        yield ok("qubesd", f"{config.run_dir / 'qubesd.sock'}: {own}")
        is_ours = yield from _in_force(config.run_dir / "qubesd.internal.sock")
        for place in (config.run_dir / "qubesd.misc.sock", config.user_socket, config.metrics_socket):
            yield _served(place)
    yield from holder(config.store, own, always=is_ours)
    yield from _in_front(config, own)
    for name in ("qubesd.sock", "qubesd.internal.sock", "qubesd.misc.sock", "qubes/policy.sock"):
        yield from _too_open(config.run_dir / name, "everybody may call as dom0")
    yield from _too_open(config.metrics_socket, "everybody may read the figures")
    yield from _agent(config)


def _served(place: Path) -> Finding:
    if answers(place):
        return ok("socket", f"{place}: answers")
    return error("socket", f"{place}: nobody answers", "systemctl restart qubesd.service")


def _too_open(place: Path, what: str) -> Iterator[Finding]:
    """A socket of dom0's that is there and lets in others than root and its group."""
    try:
        mode = place.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IRWXO:
        yield error(
            "socket",
            f"{place}: {what}",
            f"chmod o= {place}, and find out who has changed it",
        )


def _in_force(place: Path) -> Generator[Finding, None, bool]:
    """What the daemon that runs says of the policy it decides by; whether it is one of ours that says so."""
    try:
        status = json.loads(asyncio.run(ask(place, STATUS, PATIENCE, _MOST)))
    except OSError as problem:
        yield error("in force", f"{place}: {reason(problem)}", "run this as root, or restart the daemon")
        return False
    except (CallError, NoReplyError, ValueError) as problem:
        # A stock qubesd has no such call.
        yield warning("in force", f"{place}: {problem}", "qubes-policy status")
        return False
    if not status["in_force"]:
        yield error(
            "in force", "no policy: every judged call is denied", "qubes-policy check tells what is wrong"
        )
    elif status["error"] is not None:
        yield warning("in force", "the policy before, since the files do not load", "qubes-policy check")
    else:
        yield ok("in force", f"{status['rules']} rules")
    for unwatched in status["unwatched"]:
        yield warning(
            "in force",
            f"{unwatched}: cannot be watched, and is looked at every second",
            "raise fs.inotify.max_user_watches, or let the daemon read this place",
        )
    return True


def _in_front(config: Config, own: Process | None) -> Iterator[Finding]:
    """Who decides on the calls between qubes, and whether the configuration knows."""
    place = config.policy_socket
    front = _listener(place)
    if front is None:
        if own is not None or config.trust_qrexec_consent:
            yield error(
                "in front",
                f"{place}: nobody answers, and calls between qubes go to the fallback",
                "start a policy daemon, or set trust_qrexec_consent = false and restart qubesd",
            )
    elif config.trust_qrexec_consent:
        yield ok("in front", f"{place}: {front}, whose questions to the user are trusted")
    elif own is not None and front.pid == own.pid:
        yield ok("in front", f"{place}: qubesd itself")
    else:
        yield error(
            "in front",
            f"{place}: {front}, which qubesd is not told of",
            "set trust_qrexec_consent = true, or stop that daemon",
        )


def _agent(config: Config) -> Iterator[Finding]:
    place = config.services_dir / "policy.Ask"
    if _listener(place) is not None:
        yield ok("agent", f"{place}: answers")
    else:
        yield warning(
            "agent",
            f"{place}: nobody answers, and what the policy asks about is denied",
            "log in to the desktop, or start qrexec-policy-agent",
        )


def _listener(place: Path) -> Process | None:
    """Who listens there; ``None`` for nobody, or where this user may not see it."""
    try:
        with socket.socket(socket.AF_UNIX) as probe, short_path(place) as name:
            probe.setblocking(False)
            probe.connect(name)
            pid = _CREDENTIALS.unpack(
                probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )[0]
    except OSError:
        return None
    return named(pid)
