"""The wheel: the three packages, the default policy and the manual pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "broker",
    "policy_engine",
    "qubesd",
    "policy.d",
    "docs/man",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
EPOCH = "315532800"
"""1980, where a zip file's time begins: the same sources make the same bytes, whenever."""

_OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation")
_QUIET = ("--quiet", "--no-input", "--disable-pip-version-check")


def build(output: Path) -> Path:
    """Make the wheel from the sources as they are, without the network and without a trace among them.

    Raises:
        CalledProcessError: setuptools could not; it has said why on standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        sources, made = Path(folder) / "sources", Path(folder) / "made"
        sources.mkdir()
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, sources / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / part, sources / part)
        _normal_modes(sources)
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", *_OFFLINE, *_QUIET, "--wheel-dir", made, sources],
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        )
        (wheel,) = made.glob("*.whl")
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, output))


def _normal_modes(folder: Path) -> None:
    """What this user's umask made of the files is not passed on."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
