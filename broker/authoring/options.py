"""The options that the authors' commands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_places(parser: argparse.ArgumentParser) -> None:
    """The options that say where everything lies."""
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the directory that qubesd --root was given: everything is below it",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration (default: /etc/qubes/qubesd.toml, below DIR with --root)",
    )


def add_system_info(parser: argparse.ArgumentParser) -> None:
    """The option that says which qubes there are."""
    parser.add_argument(
        "--system-info",
        type=Path,
        metavar="FILE",
        help="the qubes as internal.GetSystemInfo told of them (default: ask the running qubesd)",
    )
