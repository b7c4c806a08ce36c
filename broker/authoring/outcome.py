"""How a program for authors ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from broker.described import ToolError
from qubesd.config import Config, ConfigError, load
from qubesd.errors import PolicyAdminError, StoreError

Command = Callable[[argparse.Namespace, Config], int]
"""Carries out what the options say and gives the exit status."""


def carried_out(command: Command, options: argparse.Namespace, program: str) -> NoReturn:
    """Exit as the command says; with 1 where the change is refused, and with 2 where it cannot be carried
    out, and why on standard error."""
    try:
        status = command(options, load(options.root, options.config))
    except (ToolError, ConfigError, StoreError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        status = 2
    except PolicyAdminError as error:
        print(f"{program}: {error}", file=sys.stderr)
        status = 1
    except BrokenPipeError:
        # Whoever reads has seen enough, as in `qubes-policy check | head`.
        sys.stderr.close()
        status = 2
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
