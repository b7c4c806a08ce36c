"""Who presses Ctrl-C at ``qube-backup``, or Ctrl-D, waits for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import NoReturn

import pytest

from broker.backup.archive import Archive
from qubesd.backup.processes import Processes
from tests.broker.backup.forge import PASSPHRASE, costly, good, written
from tests.broker.rig import PATIENCE, ROOT
from tests.qubesd.backup.by_hand import needs_scrypt
from tests.qubesd.backup.rig import children

pytestmark = needs_scrypt

WORK = 3
SLOW = costly(14, 8, 512)
"""As much work as a reader does at all: more than ten seconds of it."""


@pytest.mark.parametrize("compressed", ["True", "False"])
def test_a_key_that_is_derived_is_not_waited_for(tmp_path: Path, compressed: str) -> None:
    members = good()
    members[WORK] = members[WORK]._replace(content=SLOW)
    with closing(Archive(written(tmp_path / "a", members), PASSPHRASE, Processes(), tmp_path)) as archive:
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt), archive.stream("vm2/private.img"):
            interrupt_while_it_runs("scrypt")
        assert time.monotonic() - begun < 5
    assert children() == []


def interrupt_while_it_runs(program: str) -> NoReturn:
    while not is_running(program):
        time.sleep(0.01)
    raise KeyboardInterrupt


def is_running(program: str) -> bool:
    for pid in children():
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == program:
                return True
    return False


@pytest.mark.parametrize("typed", [pytest.param(b"", id="nothing"), pytest.param(b"\xff\n", id="no-text")])
def test_no_passphrase_is_typed(tmp_path: Path, typed: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker.backup.program", "verify", tmp_path / "a"],
        input=typed,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        cwd=ROOT,
        start_new_session=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert b"qube-backup: no passphrase was typed; it can be read from a file" in done.stderr
