"""What must hold on the disk while a daemon that was killed is up again and has nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qubesd.config import Config, rooted
from qubesd.errors import StoreError
from qubesd.model.state import Klass, System
from qubesd.store.xml import load

_WITHOUT_CHANNEL = (Klass.ADMIN, Klass.REMOTE)


def disk_faults(root: Path) -> Iterator[str]:
    """What is wrong below the directory of a daemon, each in words."""
    config = rooted(root)
    try:
        system = load(config.store.read_bytes(), str(config.store))
    except (OSError, StoreError) as error:
        yield str(error)
        return
    yield from _left_overs(config)
    yield from _channels(config, system)


def _left_overs(config: Config) -> Iterator[str]:
    """Nothing half-written lies beside the store."""
    for path in config.store.parent.glob(f"{config.store.name}~*"):
        yield f"{path}: left by a write that did not end"


def _channels(config: Config, system: System) -> Iterator[str]:
    """A socket for each qube, and for nothing else."""
    wanted = {f"{qube.uuid}.sock" for qube in system.qubes.values() if qube.klass not in _WITHOUT_CHANNEL}
    found = {path.name for path in config.channels_dir.glob("*.sock")}
    for name in sorted(found ^ wanted):
        what = "no qube has this channel" if name in found else "the channel of a qube is missing"
        yield f"{config.channels_dir / name}: {what}"
