"""Calls about the policy itself; dom0's own tools make them, over an internal socket."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.reload import Reloader
from policy_engine import Policy, PolicyError
from qubesd.api.method import Access, Command, Destination, Method, Reply, Scope, Text, Unguarded

if TYPE_CHECKING:
    from qubesd.core.core import Core

STATUS = "internal.PolicyStatus"


class PolicyStatus:
    """What one daemon decides by, and on what.

    Args:
        program: its name.
        sockets: where it answers the qrexec daemon and those who ask for evaluations; empty if another
            daemon does.
    """

    def __init__(self, program: str, reloader: Reloader, sockets: Sequence[Path]) -> None:
        self._program = program
        self._reloader = reloader
        self._sockets = [str(path) for path in sockets]
        self._started = time.time()

    def document(self) -> dict[str, Any]:
        """All of it, for JSON.

        ``digest``, ``rules``, ``files`` and ``warnings`` are those of the policy in force, ``null``, 0 and
        empty where none is and every judged call is denied. ``since`` is when that began and ``started`` when
        the daemon did, in seconds of the epoch. ``error`` is what keeps the files from being in force as they
        are now, ``null`` where nothing does. ``unwatched`` has the places that are looked at every second,
        since the kernel does not let them be watched.
        """
        policies = self._reloader.policies
        policy = policies.now if isinstance(policies.now, Policy) else None
        return {
            "program": self._program,
            "pid": os.getpid(),
            "started": self._started,
            "sockets": self._sockets,
            "in_force": policy is not None,
            "digest": None if policy is None else policy.digest,
            "since": policies.since,
            "rules": 0 if policy is None else len(policy.rules),
            "files": [] if policy is None else list(policy.files),
            "warnings": [] if policy is None else list(policy.warnings),
            "error": None if policies.error is None else _described(policies.error),
            "unwatched": list(self._reloader.unwatched),
        }

    def text(self) -> str:
        """The document as it is sent."""
        return json.dumps(self.document())

    def method(self) -> Method:
        """``internal.PolicyStatus`` as a line of a method table."""
        return Method(
            STATUS,
            self._answer,
            Scope.GLOBAL,
            Access.READ,
            Unguarded("never served to a qube"),
            Destination.DOM0,
        )

    def _answer(self, core: Core, command: Command) -> Reply:
        return Text(self.text())


def _described(error: PolicyError) -> dict[str, Any]:
    return {
        "kind": error.kind,
        "file": error.file,
        "line": error.line,
        "column": error.column,
        "message": error.message,
    }
