"""What a daemon under ``--root`` finds in an empty directory: the shipped policy, and a kernel in name
only."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from qubesd.config import Config

SHIPPED = ("*.policy", "include/*", "examples/*")
"""The files of the default policy, as patterns below its folder."""

PLACEHOLDER_KERNEL = "0-placeholder"
"""A kernel whose ``vmlinuz`` is empty. The embedded hypervisor boots nothing, and a system needs a default
kernel."""


def furnish(config: Config) -> None:
    """Make what is missing; what is there is left as it is."""
    for folder in (config.qubes_dir, config.run_dir, config.policy_runtime, config.log_dir):
        folder.mkdir(parents=True, exist_ok=True)
    if not config.kernels_dir.exists():
        kernel = config.kernels_dir / PLACEHOLDER_KERNEL / "vmlinuz"
        kernel.parent.mkdir(parents=True)
        kernel.touch()
    if not config.policy_dir.exists():
        _install_policy(config.policy_dir)


def shipped_policy() -> Path:
    """The folder with the default policy: beside the packages in a checkout, below the prefix when
    installed."""
    checkout = Path(__file__).resolve().parent.parent / "policy.d"
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share/qubes-admin-core/policy.d"


def _install_policy(place: Path) -> None:
    """Copy the default policy there, whole or not at all."""
    shipped = shipped_policy()
    unfinished = place.with_name(f".{place.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for pattern in SHIPPED:
        for file in shipped.glob(pattern):
            copy = unfinished / file.relative_to(shipped)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
    unfinished.rename(place)
