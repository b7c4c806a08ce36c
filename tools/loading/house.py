"""The daemon that is loaded, and what it takes of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.root import furnish
from qubesd.config import Config, load
from qubesd.store.file import FileStore
from tools.benchmarks.broker import system_of, wait_for

FLOOD, LARGE, STEADY, LISTENER = "qube-1", "qube-2", "qube-3", "qube-4"
"""Who calls; the steady callers and the listeners go on from there."""

SUBJECT = "qube-900"
"""What listeners hear of."""

FEWEST = 950
"""Qubes of a system that has all of these, with some to spare."""

COUNTER = "load-counter"
"""The feature that is counted up."""

POLICY = f"""\
!dialect delegation-1
admin.vm.property.Get|admin.vm.feature.Get|admin.vm.feature.Set|admin.vm.List * @anyvm @anyvm allow
admin.Events|admin.vm.List * @anyvm @adminvm|{SUBJECT} allow
"""


@dataclass(frozen=True)
class Loaded:
    """A daemon that serves, and where its messages go."""

    config: Config
    pid: int
    messages: Path

    def resident(self) -> float:
        """MiB that it has in the machine's memory."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextmanager
def loaded(root: Path, qubes: int) -> Iterator[Loaded]:
    """A daemon on a system of so many qubes below ``root``; it has to end by itself when it is told to."""
    config = load(root)
    config.policy_dir.mkdir(parents=True)
    (config.policy_dir / "20-load.policy").write_text(POLICY)
    furnish(config)
    store = FileStore(config.store)
    store.save(system_of(config, qubes))
    store.close()
    messages = root / "messages"
    with messages.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "broker.daemon", "--root", str(root)], stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        wait_for(config.run_dir / "qubesd.sock")
        yield Loaded(config, process.pid, messages)
    finally:
        process.terminate()
        process.wait(60)
