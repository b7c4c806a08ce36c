"""From the last write of an edit to the first decision by it, through a running daemon.

One of 20 files of a policy of 10,000 rules is replaced again and again, and ``policy.sock`` is asked without
a pause until it answers by the new file. The slowest edit counts, so the machine has to be quiet; its
yardstick is the 100 ms that the project allows itself. The longest that one of these questions waited is told
beside the longest of as many while no file is edited: how long a new policy holds decisions up.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from broker.sockets import short_path
from qubesd.config import rooted
from tools.benchmarks.broker import exchange, served
from tools.benchmarks.yardstick import Result, result

FILES = 20
RULES = 10_000
EDITS = 40
ALLOWED = 0.1
"""Seconds."""
_PATIENCE = 30.0

_QUESTION = b"source=qube-1\nintended_target=qube-2\nservice_and_arg=bench.Edited\n\n"


def run(edits: int = EDITS) -> list[Result]:
    """Both rows. Raises ``RuntimeError`` where an edit does not come into force."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config = rooted(Path(folder) / "root")
        with served(config, 10, write_policy), short_path(config.policy_socket) as name:
            edited, socket = config.policy_dir / "30-10.policy", Path(name)
            rest = edited.read_text()
            taken = [_edit(edited, rest, socket, number % 2 == 0) for number in range(edits)]
            quiet = [_asked(socket)[1] for edit in taken for _ in edit.waits]
    slowest = max(edit.seconds for edit in taken)
    longest = max(wait for edit in taken for wait in edit.waits)
    return [
        result("reload-daemon-10000", slowest, ALLOWED, 1.0),
        result("longest-wait-10000", longest, max(quiet)),
    ]


def write_policy(folder: Path) -> None:
    """So many rules in so many files, each rule another."""
    folder.mkdir(parents=True)
    for file in range(FILES):
        rules = (
            f"bench.Service{number % 100} +argument{number} qube-{number % 7} @tag:tag{number % 50} allow\n"
            for number in range(file * RULES // FILES, (file + 1) * RULES // FILES)
        )
        (folder / f"30-{file:02}.policy").write_text("".join(rules))


@dataclass(frozen=True, slots=True)
class _Edit:
    """Seconds from its last write to the decision by it, and of each question in between."""

    seconds: float
    waits: list[float]


def _edit(file: Path, rest: str, socket: Path, allow: bool) -> _Edit:
    rule = f"bench.Edited * @anyvm @anyvm {'allow' if allow else 'deny notify=no'}\n"
    file.with_suffix(".next").write_text(rule + rest)
    file.with_suffix(".next").rename(file)
    started = time.perf_counter()
    waits = []
    while True:
        allowed, seconds = _asked(socket)
        waits.append(seconds)
        taken = time.perf_counter() - started
        if allowed is allow:
            return _Edit(taken, waits)
        if taken > _PATIENCE:
            raise RuntimeError(f"{file}: the edit does not come into force")


def _asked(socket: Path) -> tuple[bool, float]:
    """Whether the daemon allows it, and the seconds of the whole exchange."""
    started = time.perf_counter()
    answer = exchange(socket, _QUESTION)
    return b"result=allow" in answer, time.perf_counter() - started
