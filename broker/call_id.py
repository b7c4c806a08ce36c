"""The number of the call that is being served, which its audit record and every line of the log carry that is
written meanwhile: by the core, the storage and the driver of the hypervisor, in the call's tasks and threads.

It is the daemon's own count of all calls. A caller is never told: it would tell how much others call.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from itertools import count

CALL: ContextVar[int] = ContextVar("call", default=0)
"""0 outside of every call."""

_numbers = count(1)


def begin() -> Token[int]:
    """A call begins; ``CALL.reset`` with what this returns ends it for the code that goes on."""
    return CALL.set(next(_numbers))
