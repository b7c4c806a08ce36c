"""An author who types: at an editor that is a small script, and at questions."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.authoring.tool import main

SYSTEM = {
    "domains": {
        "dom0": {"type": "AdminVM", "tags": []},
        "work": {"type": "AppVM", "tags": ["office"]},
        "vault": {"type": "AppVM", "tags": ["office"]},
        "mgmt": {"type": "AppVM", "tags": []},
    }
}
GRANT = "admin.vm.Start * mgmt work allow target=dom0\n"

_EDITOR = """\
#!/bin/sh
for draft in {drafts}/*; do
    mv "$draft" "$1"
    exit
done
"""


@dataclass(frozen=True)
class Desk:
    """A policy below a root, and whoever edits it."""

    root: Path
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def write(self, **files: str) -> None:
        """Policy files by name; ``include_a`` is ``include/a``."""
        for name, content in files.items():
            self.path(name).write_text(content)

    def path(self, name: str) -> Path:
        folder = self.root / "etc/qubes/policy.d"
        if name.startswith("include_"):
            return folder / "include" / name.removeprefix("include_")
        return folder / f"{name.removeprefix('_')}.policy"

    def drafts(self, *texts: str) -> None:
        """What the editor leaves, each time that it is run."""
        folder = self.root / "drafts"
        folder.mkdir()
        for number, text in enumerate(texts):
            (folder / str(number)).write_text(text)
        script = self.root / "editor"
        script.write_text(_EDITOR.format(drafts=folder))
        script.chmod(0o755)
        self.patch.setenv("VISUAL", str(script))

    def types(self, answers: str, *arguments: str) -> tuple[int, str, str]:
        """Exit status, output and errors; the directory is taken out of both."""
        self.patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(answers.encode())))
        with pytest.raises(SystemExit) as ended:
            main(["--root", str(self.root), *arguments])
        out, err = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out.replace(f"{self.root}/", ""), err.replace(f"{self.root}/", "")

    def edits(self, answers: str, *arguments: str) -> tuple[int, str, str]:
        return self.types(answers, "edit", *arguments, f"--system-info={self.root}/system")


@pytest.fixture(name="desk")
def fixture_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    for folder in ("etc/qubes/policy.d/include", "run/qubes/policy.d", "var/lib/qubes"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "system").write_text(json.dumps(SYSTEM))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return Desk(tmp_path, monkeypatch, capsys)
