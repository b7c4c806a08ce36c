"""The qubes that a command of dom0 speaks of: those of the running qubesd, or those of a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from broker.client import CallError, NoReplyError
from broker.deciding.state import StateError
from broker.deciding.stock_state import MAX_DOCUMENT, parse_state
from broker.internal import ask
from policy_engine import World
from qubesd.config import Config

PATIENCE = 30.0
"""Seconds that qubesd may take to describe the qubes."""

NOT_ALLOWED = "permission denied; only dom0 may ask: be root, or in its group"


class ToolError(Exception):
    """What was asked for is not to be had; the text says why and what to do."""


def described_world(file: Path | None, config: Config) -> World:
    """The qubes.

    Args:
        file: the answer to ``internal.GetSystemInfo``; ``None`` to ask the qubesd that runs.

    Raises:
        ToolError: neither can be read.
    """
    if file is None:
        place, content = str(internal_socket(config)), _describe(config)
    else:
        try:
            place, content = str(file), file.read_bytes()
        except OSError as error:
            raise ToolError(f"{file}: {error.strerror}") from error
    try:
        return parse_state(content)
    except StateError as error:
        raise ToolError(f"{place}: {error}") from error


def internal_socket(config: Config) -> Path:
    """Where qubesd, ours or a stock one, answers dom0's own programs."""
    return config.run_dir / "qubesd.internal.sock"


def _describe(config: Config) -> bytes:
    place, service = internal_socket(config), "internal.GetSystemInfo"
    try:
        return asyncio.run(ask(place, service, PATIENCE, MAX_DOCUMENT))
    except PermissionError as error:
        raise ToolError(f"{place}: {NOT_ALLOWED}") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ToolError(f"{place}: nobody answers; is qubesd running, and is this dom0?") from error
    except OSError as error:
        raise ToolError(f"{place}: {error.strerror or error}") from error
    except (CallError, NoReplyError) as error:
        raise ToolError(f"{place}: {service} is not answered: {error}") from error
