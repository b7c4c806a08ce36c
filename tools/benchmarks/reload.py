"""From the last write of an edit to the first decision by it, through a running daemon.

One of 20 files of a policy of 10,000 rules is replaced again and again, and ``policy.sock`` is asked without
a pause until it answers by the new file. The slowest counts. The yardstick is the 100 ms that the project
allows itself.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from broker.sockets import short_path
from qubesd.config import rooted
from tools.benchmarks.broker import exchange, served
from tools.benchmarks.yardstick import Result

FILES = 20
RULES = 10_000
EDITS = 40
ALLOWED = 0.1
"""Seconds."""
_PATIENCE = 30.0

_QUESTION = b"source=qube-1\nintended_target=qube-2\nservice_and_arg=bench.Edited\n\n"


def run() -> list[Result]:
    """The one row. Raises ``RuntimeError`` where an edit does not come into force."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config = rooted(Path(folder) / "root")
        with served(config, 10, write_policy):
            edited = config.policy_dir / "30-10.policy"
            rest = edited.read_text()
            with short_path(config.policy_socket) as socket:
                slowest = max(_edit(edited, rest, Path(socket), number % 2 == 0) for number in range(EDITS))
    return [Result("reload-daemon-10000", slowest, ALLOWED, slowest / ALLOWED, 1.0)]


def write_policy(folder: Path) -> None:
    """So many rules in so many files, each rule another."""
    folder.mkdir(parents=True)
    for file in range(FILES):
        rules = (
            f"bench.Service{number % 100} +argument{number} qube-{number % 7} @tag:tag{number % 50} allow\n"
            for number in range(file * RULES // FILES, (file + 1) * RULES // FILES)
        )
        (folder / f"30-{file:02}.policy").write_text("".join(rules))


def _edit(file: Path, rest: str, socket: Path, allow: bool) -> float:
    """Seconds until the daemon decides by the edit."""
    rule = f"bench.Edited * @anyvm @anyvm {'allow' if allow else 'deny notify=no'}\n"
    file.with_suffix(".next").write_text(rule + rest)
    file.with_suffix(".next").rename(file)
    started = time.perf_counter()
    while (b"result=allow" in exchange(socket, _QUESTION)) is not allow:
        if time.perf_counter() - started > _PATIENCE:
            raise RuntimeError(f"{file}: the edit does not come into force")
    return time.perf_counter() - started
