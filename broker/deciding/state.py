"""Where the qubes that are decided by come from, and that they cannot be had."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from policy_engine import World


class StateError(Exception):
    """What the qubes are is not to be had; nothing can be decided."""


State = Callable[[], World | Awaitable[World]]
"""Gives the qubes as they are now, or were at some time after it was called; raises ``StateError``."""
