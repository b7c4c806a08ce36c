"""dom0's part of a backup: the home of the first user of the group that may call as dom0."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from subprocess import DEVNULL

from qubesd.backup.processes import Processes

FOLDER = "dom0-home"


def home_in_group(group: str) -> Path | None:
    """That home, where it really lies; ``None`` where the group is empty, not there or without a name."""
    try:
        members = grp.getgrnam(group).gr_mem if group else []
        home = Path(pwd.getpwnam(members[0]).pw_dir) if members else None
    except KeyError:
        return None
    return home.resolve() if home is not None and home.is_dir() else None


def used(home: Path) -> int:
    """Bytes that it takes on the disk."""
    total = 0
    for folder, _, names in os.walk(home):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:  # it went away, or nobody may look at it, such as what a user has mounted
                continue
    return total


def write_home(home: Path, target: int, processes: Processes) -> None:
    """The whole folder as ``dom0-home/USER``, links as links; what changes meanwhile is as it was read."""
    words = ["tar", "-c", "--sparse", "--format=gnu", "-C", str(home.parent)]
    words += ["--transform", f"flags=rSh;s,^,{FOLDER}/,", "--", home.name]
    with processes.running(words, DEVNULL, target) as process:
        process.finish(good=(0, 1))
