"""What must hold on the disk while a daemon that was killed is up again and has nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qubesd.config import Config, rooted
from qubesd.errors import StoreError
from qubesd.model.state import Klass, System
from qubesd.store.xml import load

_FOLDERS = ("appvms", "vm-templates")
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
    yield from _images(config, system)


def _left_overs(config: Config) -> Iterator[str]:
    """Nothing half-written lies beside the store."""
    for path in config.store.parent.glob(f"{config.store.name}~*"):
        yield f"{path}: left by a write that did not end"
    for path in (config.qubes_dir / ".pending").glob("*"):
        yield f"{path}: a qube that is still being made or removed"


def _channels(config: Config, system: System) -> Iterator[str]:
    """A socket for each qube, and for nothing else."""
    wanted = {f"{qube.uuid}.sock" for qube in system.qubes.values() if qube.klass not in _WITHOUT_CHANNEL}
    found = {path.name for path in config.channels_dir.glob("*.sock")}
    for name in sorted(found ^ wanted):
        what = "no qube has this channel" if name in found else "the channel of a qube is missing"
        yield f"{config.channels_dir / name}: {what}"


def _images(config: Config, system: System) -> Iterator[str]:
    """Each volume that keeps its content has its image, in the pool of the system; nothing lies there that
    belongs to no qube or was not finished. No qube runs."""
    for qube in system.qubes.values():
        for volume in qube.volumes.values():
            if volume.save_on_stop and not (config.qubes_dir / f"{volume.vid}.img").exists():
                yield f"{volume.vid}: the volume of a qube has no image"
    for folder in _FOLDERS:
        for path in (config.qubes_dir / folder).glob("*/*"):
            template = folder == "vm-templates"
            owner = system.qubes.get(path.parent.name)
            if owner is None or (owner.klass is Klass.TEMPLATE) is not template:
                yield f"{path}: belongs to no qube"
            elif path.name.endswith(("~", "-import.img", "-dirty.img")):
                yield f"{path}: was not finished"
