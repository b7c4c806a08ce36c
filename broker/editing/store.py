"""The policy files on the disk: read, replaced and taken away under one lock, each step whole and lasting.

The lock is the stock one, ``flock`` on the policy directory, so stock's own editors and ours wait for each
other. A new content is written under a name that every loader passes over, and renamed.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from broker.editing.names import INCLUDE, SUFFIX, is_kept
from policy_engine import MAX_FILE
from qubesd.disk import sync
from qubesd.errors import BadPolicyPath, NoSuchPolicyFile, PolicyAdminError

PATIENCE = 10.0
"""Seconds that an edit waits for those before it."""

MAX_FILES = 2_000
MAX_TOTAL = 64 * 1024 * 1024
"""Files, and bytes of all of them, that are edited and kept together. The loader has the same bound of
bytes."""

_LOOK = 0.01
"""Seconds between two looks at a lock that somebody holds."""

_OURS = ".qubes-policy-"
_UNFINISHED, _ASIDE = f"{_OURS}new.", f"{_OURS}old."
"""What the name of a file begins with that is not whole yet, or that was there before an edit."""

_FILE_MODE, _FOLDER_MODE = 0o664, 0o775


def token_of(content: bytes) -> str:
    """What tells one content of a file from another."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class PolicyStore:
    """The files of one policy directory and its ``include``. Every method blocks, and raises ``OSError`` as
    the disk does.

    Args:
        group: owns what is written, where that is possible; empty leaves it to the system.
    """

    def __init__(self, directory: Path, group: str = "") -> None:
        self.directory = Path(os.path.realpath(directory))
        self._group = group

    @contextmanager
    def locked(self, patience: float = PATIENCE) -> Iterator[None]:
        """Nobody else edits meanwhile. Raises ``PolicyAdminError`` where others do not let go in time."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + patience
            while not _lock(descriptor):
                if time.monotonic() > deadline:
                    raise PolicyAdminError("somebody else is editing the policy: try again")
                time.sleep(_LOOK)
            yield
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Take away what edits left beside the files; nothing can be put back any more."""
        for folder in (self.directory, self.directory / INCLUDE):
            for left in folder.glob(f"{_OURS}*"):
                left.unlink()

    def names(self, included: bool) -> list[str]:
        """The regular files there as lists name them, sorted."""
        folder = self.directory / INCLUDE if included else self.directory
        suffix = "" if included else SUFFIX
        try:
            found = [name for name in os.listdir(folder) if _is_listed(name) and name.endswith(suffix)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name.removesuffix(suffix) for name in found if (folder / name).is_file())

    def real(self, file: str) -> str:
        """The file that this one is, links within its folder followed. Raises ``BadPolicyPath``."""
        path = os.path.realpath(self.directory / file)
        real = os.path.relpath(path, self.directory)
        if os.path.dirname(real) != os.path.dirname(file) or not is_kept(real):
            raise BadPolicyPath("this name leads elsewhere")
        return real

    def read(self, file: str) -> bytes:
        """Raises ``NoSuchPolicyFile``, or ``BadPolicyPath`` for what is no regular file or is too large."""
        try:
            descriptor = os.open(
                self.directory / file,
                os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY,
            )
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchPolicyFile("there is no such file") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, or a socket
                raise BadPolicyPath("this is no file") from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadPolicyPath("this is no file")
            with open(descriptor, "rb", closefd=False) as stream:
                content = stream.read(MAX_FILE + 1)
        finally:
            os.close(descriptor)
        if len(content) > MAX_FILE:
            raise BadPolicyPath(f"this file has more than {MAX_FILE} bytes, which no policy may have")
        return content

    def contents(self) -> dict[str, bytes]:
        """All files that are edited, kept and backed up; what is no such file, or a link, is passed over.

        Raises:
            PolicyAdminError: there are too many.
        """
        found: dict[str, bytes] = {}
        left = MAX_TOTAL
        for file in (*self._kept(""), *self._kept(INCLUDE)):
            with suppress(NoSuchPolicyFile, BadPolicyPath):
                found[file] = self.read(file)
                left -= len(found[file])
            if left < 0 or len(found) > MAX_FILES:
                break
        check_bounds(found)
        return found

    def _kept(self, folder: str) -> list[str]:
        place = self.directory / folder
        if os.path.realpath(place) != str(place) or not place.is_dir():
            return []
        return sorted(folder + name for name in os.listdir(place) if is_kept(folder + name))

    def write(self, file: str, content: bytes) -> None:
        """Make it the file's content, for good. Where that fails, ``put_back`` is to be called."""
        path = self.directory / file
        if not path.parent.is_dir():
            path.parent.mkdir(_FOLDER_MODE)
            self._give(path.parent, _FOLDER_MODE)
            sync(self.directory)
        unfinished = path.with_name(_UNFINISHED + path.name)
        descriptor = os.open(
            unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            with open(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                self._give(unfinished, _FILE_MODE)
                os.fsync(descriptor)
            with suppress(FileNotFoundError, PermissionError):
                os.link(path, path.with_name(_ASIDE + path.name), follow_symlinks=False)
            unfinished.rename(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        sync(path.parent)

    def remove(self, file: str) -> None:
        """Take it away for good. Where that fails, ``put_back`` is to be called."""
        path = self.directory / file
        path.rename(path.with_name(_ASIDE + path.name))
        sync(path.parent)

    def put_back(self, file: str, was_there: bool) -> None:
        """Undo what an edit did to this file since ``clear``; that takes no room on the disk."""
        path = self.directory / file
        if was_there:
            with suppress(FileNotFoundError):  # nothing was done to it
                path.with_name(_ASIDE + path.name).rename(path)
        else:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            sync(path.parent)

    def _give(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        give(path, self._group)


def check_bounds(contents: Mapping[str, bytes]) -> None:
    """Raises ``PolicyAdminError`` where a policy has too many files, or files that are too large."""
    if len(contents) > MAX_FILES or sum(map(len, contents.values())) > MAX_TOTAL:
        raise PolicyAdminError(f"a policy has at most {MAX_FILES} files and {MAX_TOTAL} bytes")


def give(path: Path, group: str) -> None:
    """Have the file belong to root and this group, as far as it is there and ours to give."""
    with suppress(PermissionError, KeyError):
        if group:
            os.chown(path, 0 if os.geteuid() == 0 else -1, grp.getgrnam(group).gr_gid)


def _is_listed(name: str) -> bool:
    """Whether a list can tell of a file of this name; others are no policy files, or make no policy load."""
    return name.isascii() and name.isprintable() and " " not in name and not name.startswith(".")


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
