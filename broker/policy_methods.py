"""Calls about the policy itself; dom0's own tools make them, over the internal socket."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from broker.reload import Reloader
from policy_engine import Policy, PolicyError
from qubesd.api.method import Access, Command, Destination, Method, Reply, Scope, Text, Unguarded

if TYPE_CHECKING:
    from qubesd.core.core import Core

STATUS = "internal.PolicyStatus"


def status_method(program: str, reloader: Reloader) -> Method:
    """``internal.PolicyStatus``: what this program decides by, as one JSON document."""

    def status(core: Core, command: Command) -> Reply:
        return Text(json.dumps(status_of(program, reloader)))

    return Method(
        STATUS,
        status,
        Scope.GLOBAL,
        Access.READ,
        Unguarded("never served to a qube"),
        Destination.DOM0,
    )


def status_of(program: str, reloader: Reloader) -> dict[str, Any]:
    """What a program decides by.

    ``digest``, ``rules``, ``files`` and ``warnings`` are those of the policy in force, ``null``, 0 and empty
    where none is and every judged call is denied. ``since`` is when that began, in seconds of the epoch.
    ``error`` is what keeps the files from being in force as they are now, ``null`` where nothing does.
    ``unwatched`` has the places that are looked at every second, since the kernel does not let them be
    watched.
    """
    policies = reloader.policies
    policy = policies.now if isinstance(policies.now, Policy) else None
    return {
        "program": program,
        "pid": os.getpid(),
        "in_force": policy is not None,
        "digest": None if policy is None else policy.digest,
        "since": policies.since,
        "rules": 0 if policy is None else len(policy.rules),
        "files": [] if policy is None else list(policy.files),
        "warnings": [] if policy is None else list(policy.warnings),
        "error": None if policies.error is None else _described(policies.error),
        "unwatched": list(reloader.unwatched),
    }


def _described(error: PolicyError) -> dict[str, Any]:
    return {
        "kind": error.kind,
        "file": error.file,
        "line": error.line,
        "column": error.column,
        "message": error.message,
    }
