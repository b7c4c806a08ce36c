"""The fallback as it is installed: from the start of ``qrexec-policy-exec`` to its end with the answer of a
running daemon, as the C qrexec daemon waits for it. The yardstick is a Python that only starts."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qubesd.config import rooted
from tools.benchmarks.broker import alternate, served
from tools.benchmarks.yardstick import Result
from tools.installation import tree, wheel
from tools.installation.switch import OUR_FALLBACK, resolved

PASSES = 10
LIMIT = 8.0
"""60 ms, where a bare start takes 7.5."""


def run() -> list[Result]:
    """The one row. Raises ``RuntimeError`` where the daemon's answer is not the one that is printed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config = rooted(Path(folder) / "root")
        scratch = Path(folder) / "dom0"
        tree.install(wheel.build(Path(folder)), scratch, "instead", None)
        program = resolved(scratch, OUR_FALLBACK.leads)
        with served(config, 10, write_policy):
            ask: list[str | Path] = [
                program,
                f"--socket-path={config.policy_socket}",
                "--",
                "qube-1",
                "qube-2",
                "bench.Allowed+",
            ]
            bare: list[str | Path] = ["/usr/bin/python3", "-I", "-S", "-c", "pass"]
            if b"result=allow\n" not in started(ask):
                raise RuntimeError(f"{program}: the daemon's answer is not the one that is printed")
            return [alternate("policy-exec", lambda: started(ask), lambda: started(bare), PASSES, LIMIT)]


def write_policy(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "30-bench.policy").write_text("bench.Allowed * @anyvm @anyvm allow\n")


def started(command: Sequence[str | Path]) -> bytes:
    """What a program prints, which ends well."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
