"""The restore of dom0's home into a new folder of a home that is there (``spec/backup.md`` 4, step 7)."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.backup.archive import Archive, SavedHome
from broker.backup.progress import counted
from broker.backup.tree import Tree
from broker.backup.unpacking import Unpacking, folder_at
from qubesd.backup.home import home_in_group
from qubesd.disk import reason
from qubesd.errors import QubesError


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
        with _appearing(home, name, tree) as unpacking:
            with archive.members(saved.path) as members:
                for entry in members:
                    unpacking.put(tree.add(entry), entry, counted(members.pieces(entry), count))
            unpacking.finish(tree.finished())
    except OSError as error:
        raise QubesError(f"{home}: the home cannot be unpacked there: {reason(error)}") from error
    return home / name


@contextmanager
def _appearing(home: Path, name: str, tree: Tree) -> Iterator[Unpacking]:
    """A folder to be filled, which gets its name when that is done, or is removed with what ``tree`` says is
    in it. Meanwhile it is hidden, and its owner has no way in."""
    with folder_at(home.resolve()) as above:
        if name in os.listdir(above):
            raise QubesError(f"{home / name}: there is something already; try again")
        status = os.fstat(above)
        owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
        hidden = f".{name}.{secrets.token_hex(4)}"
        os.mkdir(hidden, 0o700, dir_fd=above)
        with folder_at(hidden, above) as root:
            _check_ours(root, home / hidden)
            unpacking = Unpacking(root, owner)
            try:
                yield unpacking
                os.sync()  # what is there after a loss of power is there whole
                os.rename(hidden, name, src_dir_fd=above, dst_dir_fd=above)
            except BaseException:
                unpacking.empty(tree.home)
                os.rmdir(hidden, dir_fd=above)
                raise
        os.sync()


def _check_ours(folder: int, place: Path) -> None:
    """``QubesError`` where somebody has put another in the place of the new folder."""
    status = os.fstat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & 0o777 != 0o700 or os.listdir(folder):
        raise QubesError(f"{place}: not the folder that was made; somebody changes {place.parent} meanwhile")
