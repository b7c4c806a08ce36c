"""What ``qube-backup`` shows of an archive, and how it asks for the passphrase; no daemon is there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from broker.backup.program import main
from tests.broker.backup.forge import PASSPHRASE, good, inner, of_file, written
from tests.broker.backup.homes import HOME, entry, home, with_home
from tests.broker.rig import PATIENCE, ROOT
from tests.e2e.backup_rig import phrase_in
from tests.qubesd.backup.by_hand import needs_scrypt

pytestmark = needs_scrypt


@pytest.fixture(scope="module")
def phrase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phrase_in(tmp_path_factory.mktemp("phrase"))


def test_list_and_verify(phrase: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ("vm2/keepsake", "vm3/keepsake", "strange/x", "vm3/d/x")
    ann = with_home(home(entry(f"{HOME}/x", b"of ann")))
    archive = written(tmp_path / "a", [*ann, *(of_file(path, inner(path)) for path in paths)])
    for words, status, want in (
        (["list"], 0, "private keepsake\n"),
        (["list"], 0, "\ndom0                             AdminVM               4096  home of ann\n"),
        (["list"], 0, "\nbesides: strange/x\nbesides: vm3/d/x\n"),
        (["list", "--json"], 0, '"name": "work", "class": "StandaloneVM", "size": 1048576'),
        (
            ["list", "--json"],
            0,
            '{"name": "dom0", "class": "AdminVM", "size": 4096, "images": [], "added": []}',
        ),
        (["verify"], 0, "whole and authentic, 2 qubes and dom0's home"),
        (["verify", "--json"], 0, '"qubes": ["dom0", "mail", "work"], "other": ["strange/x", "vm3/d/x"]'),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--passphrase-file", str(phrase), str(archive)])
        assert ended.value.code == status
        assert want in capsys.readouterr().out


def test_a_home_is_verified_as_it_would_be_restored(
    phrase: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = written(tmp_path / "a", with_home(home(entry("/etc/passwd"))))
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--passphrase-file", str(phrase), str(archive)])
    assert ended.value.code == 1
    assert "'/etc/passwd' is no path of a home" in capsys.readouterr().err


def test_a_passphrase_is_asked_for_on_the_terminal(tmp_path: Path) -> None:
    """And not shown there."""
    archive = written(tmp_path / "a", good())
    master, slave = os.openpty()
    shown: list[bytes] = []

    def look() -> None:
        try:
            while piece := os.read(master, 4096):
                shown.append(piece)
                if b"Passphrase" in piece:
                    os.write(master, f"{PASSPHRASE}\n".encode())
        except OSError:
            return

    terminal = threading.Thread(target=look)
    terminal.start()
    words = [sys.executable, "-m", "broker.backup.program", "verify", str(archive)]
    done = subprocess.run(
        words, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True, check=False
    )
    os.close(slave)
    terminal.join(PATIENCE)
    os.close(master)
    said = b"".join(shown)
    assert done.returncode == 0, said
    assert b"whole and authentic" in said
    assert PASSPHRASE.encode() not in said
