"""The restore of dom0's home into a new folder of a home that is there (``spec/backup.md`` 4, step 7)."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from broker.backup.archive import Archive, SavedHome
from broker.backup.progress import counted
from broker.backup.tree import Tree
from broker.backup.unpacking import Unpacking, empty, folder_at
from qubesd.backup.home import home_in_group
from qubesd.disk import reason
from qubesd.errors import QubesError

_HIDDEN = re.compile(r"\.home-restore-\d{4}-\d\d-\d\dT\d{6}\.[0-9a-f]{8}", re.ASCII)
"""What a home is called that is not whole."""


def target(given: Path | None, group: str) -> Path:
    """The home that a restored one is put into: the given one, or that of the first member of the group.

    Raises:
        QubesError: there is none, or nothing can be put there.
    """
    home = given or home_in_group(group)
    if home is None:
        raise QubesError(
            f"dom0's home has nowhere to go, no user with a home is in the group {group!r}: "
            "name a folder with --home, or leave it out with --exclude dom0"
        )
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        raise QubesError(f"{home}: no folder to which you may write; name another with --home")
    return home


def check_home(archive: Archive, saved: SavedHome, count: Callable[[int], None]) -> None:
    """Read all of the home as a restore does, and write nothing. ``count`` is told of the bytes that were
    read.

    Raises:
        QubesError: it is damaged, or hostile.
    """
    tree = Tree(saved.path)
    with archive.members(saved.path) as members:
        for entry in members:
            tree.add(entry)
            for _, piece in members.pieces(entry):
                count(len(piece))
    tree.finished()


def restore_home(archive: Archive, saved: SavedHome, home: Path, count: Callable[[int], None]) -> Path:
    """The new folder in ``home`` with all that was saved, which is there whole or not at all.

    It belongs to whom ``home`` belongs to, if root restores it, and nobody else may look into it.

    Raises:
        QubesError: it is damaged or hostile, or cannot be written.
    """
    name = time.strftime("home-restore-%Y-%m-%dT%H%M%S")
    tree = Tree(saved.path)
    try:
        with folder_at(home.resolve()) as above:
            _clear(above, home)
            with _appearing(above, home, name) as unpacking:
                with archive.members(saved.path) as members:
                    for entry in members:
                        unpacking.put(tree.add(entry), entry, counted(members.pieces(entry), count))
                unpacking.finish(tree.finished())
    except OSError as error:
        raise QubesError(f"{home}: the home cannot be unpacked there: {reason(error)}") from error
    return home / name


def _clear(above: int, home: Path) -> None:
    """Have the folder for this restore alone, until it is closed, and remove what one that was killed left.

    Raises:
        QubesError: another restore is under way there.
    """
    try:
        fcntl.flock(above, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise QubesError(f"{home}: another restore puts a home there; wait for it") from error
    for name in filter(_HIDDEN.fullmatch, os.listdir(above)):
        with suppress(NotADirectoryError, PermissionError), folder_at(name, above) as left:
            if _is_ours(left):
                empty(left)
                os.rmdir(name, dir_fd=above)


@contextmanager
def _appearing(above: int, home: Path, name: str) -> Iterator[Unpacking]:
    """A folder in ``above``, which is ``home``, to be filled. It gets its name when that is done, or is
    removed with what is in it. Meanwhile it is hidden, and its owner has no way in."""
    if name in os.listdir(above):
        raise QubesError(f"{home / name}: there is something already; try again")
    status = os.fstat(above)
    owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
    hidden = f".{name}.{secrets.token_hex(4)}"
    os.mkdir(hidden, 0o700, dir_fd=above)
    with folder_at(hidden, above) as root:
        if not _is_ours(root) or os.listdir(root):
            raise QubesError(
                f"{home / hidden}: not the folder that was made; somebody changes {home} meanwhile"
            )
        unpacking = Unpacking(root, owner)
        try:
            yield unpacking
            os.sync()  # what is there after a loss of power is there whole
            unpacking.hand_over()
            os.rename(hidden, name, src_dir_fd=above, dst_dir_fd=above)
        except BaseException:
            empty(root)
            os.rmdir(hidden, dir_fd=above)
            raise
    os.sync()


def _is_ours(folder: int) -> bool:
    """Whether it is as a restore makes it, by whoever restores now, before it is handed over."""
    status = os.fstat(folder)
    return status.st_uid == os.geteuid() and status.st_mode & 0o777 == 0o700
