"""What the tests of backups across daemons have in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from broker.client import call
from tests.broker.backup.forge import PASSPHRASE
from tests.broker.rig import PATIENCE, ROOT, Daemon


def ask(daemon: Daemon, service: str, target: str = "dom0", argument: str = "", payload: str = "") -> str:
    return call(daemon.socket, service, target, argument, payload.encode(), timeout=PATIENCE).decode()


def program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "broker.backup.program", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def restored(daemon: Daemon, phrase: Path, archive: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return program("restore", "--root", daemon.root, "--passphrase-file", phrase, archive, *words)


def phrase_in(folder: Path) -> Path:
    """A file with the passphrase of every archive here."""
    file = folder / "phrase"
    file.write_text(f"{PASSPHRASE}\nnot this\n")
    return file
