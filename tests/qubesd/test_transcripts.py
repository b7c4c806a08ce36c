"""The recorded transcripts of the Admin API, played to real daemons by the tool that comes with them.

They lie outside the repository: ``QUBES_CORPORA`` names the folder, else ``../shared/corpora`` beside it.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from qubesd.api.table import METHODS
from tests.qubesd.daemon import running_daemon

_REPOSITORY = Path(__file__).parents[2]
CORPUS = Path(os.environ.get("QUBES_CORPORA", _REPOSITORY.parent / "shared/corpora")) / "admin"
REPLAY = CORPUS / "replay.py"
TRANSCRIPTS = CORPUS / "transcripts.jsonl.gz"

CHUNKS: Mapping[str, Sequence[str]] = {
    "settings": (
        "p-help",
        "p-set-numbers",
        "p-set-booleans",
        "p-set-texts",
        "p-set-addresses",
        "p-set-fixed",
        "p-properties-template",
        "p-properties-app",
        "p-inherited-defaults",
        "p-icons",
        "p-globals",
        "p-empty-system",
    ),
    "qubes": (
        "p-create-names",
        "p-create-payload",
        "p-classes",
        "p-remove-in-use",
        "p-remote-qubes",
        "p-template-changes",
        "p-dispvm-settings",
        "p-disposables",
        "p-creation-features",
        "p-contract",
        "p-unknown-calls",
        "p-destinations",
        "p-framing",
        "p-events-create-remove",
    ),
    "labels, tags, features": (
        "p-labels",
        "p-tags",
        "p-features",
        "p-feature-chains",
        "p-feature-rules",
        "p-gui-audio",
        "p-netvm",
        "p-denied-devices",
        "p-addresses",
        "p-events-globals",
    ),
    "volumes and pools": (
        "p-volumes",
        "p-volume-clone",
        "p-volume-revisions",
        "p-volume-",
        "p-revert",
        "p-outdated",
        "p-pools",
        "p-create-in-pool",
    ),
    "devices": ("p-devices",),
    "firewall, notes, backups": ("p-firewall-valid", "p-firewall-invalid", "p-notes", "p-backups"),
    "life": (
        "p-lifecycle",
        "p-running-constraints",
        "p-events-power",
        "p-events-settings",
        "p-streams",
    ),
}
"""Scenarios by the words that select them; each chunk is played to a daemon of its own."""

LEFT_OUT: Mapping[str, Sequence[int]] = {
    # The specification is right: removing a feature that is not there tells nobody.
    "p-events-settings": (64, 65),
    # It expects that there is no admin.pool.volume.Info, which the published page promises and we have.
    "p-unknown-calls": (16,),
    # It expects that notes end at the limit of all other requests; they reach their own, documented one.
    "p-framing": (17, 18),
}
"""Steps that are not played although they are no calls of a later part."""


def is_played(step: Mapping[str, Any], words: Sequence[str]) -> bool:
    """Whether the step belongs to these scenarios and is about what there is."""
    if not any(word in step["scenario"] for word in words):
        return False
    if step["op"] == "call" and step["method"] not in METHODS and step.get("exception") != "ProtocolError":
        return False
    return step["step"] not in LEFT_OUT.get(step["scenario"], ())


@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in CHUNKS.items()])
def test_daemon_answers_as_recorded(words: Sequence[str], tmp_path: Path) -> None:
    if not REPLAY.exists():
        pytest.skip(f"no transcripts: {REPLAY} is missing")
    played = tmp_path / "played.jsonl"
    with gzip.open(TRANSCRIPTS, "rt", encoding="utf-8") as lines, played.open("w") as out:
        out.writelines(line for line in lines if is_played(json.loads(line), words))
    with running_daemon(tmp_path / "d") as path:
        result = subprocess.run(
            [sys.executable, str(REPLAY), "--socket", str(path), "--workdir", str(tmp_path), str(played)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 0, result.stdout + result.stderr
