"""What the documents say to type is typed, in order, and answers what they show.

In a ``console`` block a line that begins with ``$`` is a command, the lines after it are its output, in which
``...`` stands for anything; without such lines it must say nothing. ``tools/run`` without arguments stays
until it is typed again or the document ends, as in a reader's first terminal. Commands run in a folder of
their own, which has this checkout's tools and a fresh ``var``; the path of that folder is taken out of what
they print.
"""

from __future__ import annotations

import doctest
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LIMIT = 90.0
"""Seconds that one command may take."""

STAYS = "tools/run"
NEEDED = {"backup.md": "scrypt"}
"""Programs that a document's reader has to have."""
READY = b"Ctrl-C stops it."
"""The last line of what stays, by which a reader knows that they can go on."""


@dataclass(frozen=True)
class Command:
    """A line to type and the output that the document shows; ``where`` is ``FILE:LINE``."""

    where: str
    line: str
    shown: str


def commands(document: Path) -> Iterator[Command]:
    text = document.read_text(encoding="utf-8")
    for block in re.finditer(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        first = text.count("\n", 0, block.start(1)) + 1
        typed: list[tuple[int, str, list[str]]] = []
        for number, line in enumerate(block[1].splitlines(), first):
            if line.startswith("$ "):
                typed.append((number, line[2:], []))
            else:
                assert typed, f"{document.name}:{number}: output before the first command"
                typed[-1][2].append(line + "\n")
        for number, line, shown in typed:
            yield Command(f"{document.name}:{number}", line, "".join(shown))


@dataclass
class Reader:
    """Someone who types: ``stays`` is the ``tools/run`` in their other terminal."""

    folder: Path
    stays: subprocess.Popen[bytes] | None = field(default=None)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "QUBESD_ROOT": str(self.folder / "var"), "TERM": "dumb"}

    def type(self, command: Command) -> str:
        if command.line == STAYS:
            self.leave()
            return self._stay(command)
        done = subprocess.run(
            ["bash", "-c", command.line],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
        return done.stdout.decode()

    def leave(self) -> None:
        """Ctrl-C in the other terminal; it must end well."""
        if self.stays is not None:
            stays, self.stays = self.stays, None
            stays.send_signal(signal.SIGINT)
            _, errors = stays.communicate(timeout=LIMIT)
            assert (stays.returncode, errors) == (0, b"")

    def _stay(self, command: Command) -> str:
        stays = subprocess.Popen(
            ["bash", "-c", f"exec {command.line}"],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A terminal's programs take Ctrl-C; what runs behind a script ignores it, and so would its own.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            start_new_session=True,
        )
        self.stays = stays
        assert stays.stdout is not None
        said = b""
        deadline = time.monotonic() + LIMIT
        with selectors.DefaultSelector() as waiting:
            waiting.register(stays.stdout, selectors.EVENT_READ)
            while READY not in said:
                assert waiting.select(deadline - time.monotonic()), (
                    f"{command.where}: not ready: {said.decode()}"
                )
                more = os.read(stays.stdout.fileno(), 65536)
                assert more, f"{command.where}: ended: {said.decode()}{stays.communicate()[1].decode()}"
                said += more
        return said.decode()


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    for name in ("tools", "policy.d", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    someone = Reader(folder)
    try:
        yield someone
        someone.leave()
    finally:
        if someone.stays is not None:
            # With the daemon that it has started.
            os.killpg(someone.stays.pid, signal.SIGKILL)
            someone.stays.communicate()


TYPED = [document for document in DOCUMENTS if any(commands(document))]


@pytest.mark.parametrize("document", [pytest.param(path, id=path.name) for path in TYPED])
def test_what_the_document_says_to_type_answers_what_it_shows(document: Path, tmp_path: Path) -> None:
    needed = NEEDED.get(document.name)
    if needed is not None and shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed")
    compare = doctest.OutputChecker()
    with reader(tmp_path) as someone:
        for command in commands(document):
            given = someone.type(command).replace(f"{tmp_path}/", "")
            if command.line == STAYS:
                continue
            same = compare.check_output(command.shown, given, doctest.ELLIPSIS)
            assert same, f"{command.where}: {command.line}\nshown:\n{command.shown}\ngiven:\n{given}"


def test_the_readme_has_something_to_type() -> None:
    assert ROOT / "README.md" in TYPED


def test_the_readme_says_what_each_package_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {line.partition(";")[0] for line in project["dependencies"]}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| ([\w-]+) \| .* \| .* \|$", text, re.MULTILINE)) >= needed
    _, _, worked_with = text.partition("To work on it: ")
    assert [name for name in project["optional-dependencies"]["dev"] if name not in worked_with] == []


@pytest.mark.parametrize(
    "document", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCUMENTS]
)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize(
    "document", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCUMENTS]
)
def test_paths_in_tables_and_text_exist(document: Path) -> None:
    """A path in backquotes that begins with one of our folders."""
    named = re.findall(
        r"`((?:broker|policy_engine|qubesd|policy\.d|tests|tools|docs)/[\w./-]*)`",
        document.read_text(encoding="utf-8"),
    )
    assert [path for path in named if not (ROOT / path).exists()] == []
