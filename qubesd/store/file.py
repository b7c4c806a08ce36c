"""The file on the disk: one owner, replaced in one step, never half-written, never overwritten unseen.

New content goes to a file beside the old one, is synced, and takes the old one's name; then the directory is
synced. So whatever happens, and whenever, the name stands for one whole version. The version before is kept
beside it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from qubesd.disk import reason, sync, why
from qubesd.errors import StoreError
from qubesd.model.state import System
from qubesd.store import copies
from qubesd.store.writing import Writer
from qubesd.store.xml import load

_log = logging.getLogger(__name__)

_MODE = 0o660
_TRIES = 10
"""How often the file may be replaced by another process between opening and locking it."""

_Identity = tuple[int, int, int, int]


class FileStore:
    """The store at one path, held by one process at a time through a lock on the file itself.

    The lock is a POSIX one, which a process loses when it closes the file anywhere: nothing else in this
    process may open it. Every method blocks, on the disk only; ``save`` may run in a thread, one call at a
    time.
    """

    def __init__(self, path: Path, group: str = "", copies_in: Path | None = None) -> None:
        """``group`` owns what is written; empty leaves that to the system. ``copies_in`` is the folder for
        copies of what was loaded; ``None`` for none."""
        self.path = path
        self._copies = copies_in
        self.previous = path.with_name(path.name + ".previous")
        self._link = path.with_name(path.name + "~link")
        self._ours = re.compile(re.escape(path.name) + r"~(link|[a-z0-9_]{8})")
        """What a killed write leaves, as ``tempfile`` names it; an editor's ``qubes.xml~`` is not ours."""
        self._group = group
        self._writer = Writer()
        self._held: int | None = None
        self._seen: _Identity | None = None

    def exists(self) -> bool:
        return self.path.exists()

    def load(self) -> System:
        """The system in the file, which this process holds from now on; left-overs of a killed write go.

        Raises:
            StoreError: there is no file, another process holds it, or it is damaged. It was not touched.
        """
        self.close()
        try:
            fd = self._open()
            self._hold(fd)
            with open(fd, "rb", closefd=False) as file:
                data = file.read()
            system = load(data, str(self.path))
            for left in self.path.parent.iterdir():
                if self._ours.fullmatch(left.name):
                    left.unlink()
        except OSError as error:
            self.close()
            raise StoreError(f"{self.path}: cannot be read: {reason(error)}") from error
        except StoreError:
            self.close()
            raise
        self._keep_copy(data)
        return system

    def save(self, system: System) -> None:
        """Replace the file; when this returns, the system survives a loss of power.

        Raises:
            StoreError: the file holds what it held before, and why. Among the reasons: somebody else changed
                the file since this process read or wrote it.
        """
        data = self._writer.dump(system)
        try:
            if self._on_disk() != self._seen:
                raise StoreError(
                    f"{self.path}: changed by someone else, nothing was written: restart to take it over"
                )
            self._hold(self._replace(data))
        except (OSError, LookupError) as error:
            what = f"{why(error)}"
            raise StoreError(f"{self.path}: cannot be written, nothing was changed: {what}") from error

    def close(self) -> None:
        """Let go of the file."""
        if self._held is not None:
            os.close(self._held)
        self._held = self._seen = None

    def _keep_copy(self, data: bytes) -> None:
        """Where there is no room for it, the system is not kept from running."""
        if self._copies is None:
            return
        try:
            copies.keep(self._copies, data, time.time())
        except OSError as error:
            _log.warning("%s: no copy of the store was made: %s", self._copies, why(error))

    def _open(self) -> int:
        """The open, locked file that the path stands for."""
        for _ in range(_TRIES):
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._lock(fd)
                if _identity(os.fstat(fd)) == self._on_disk():
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise StoreError(f"{self.path}: somebody else keeps replacing it")

    def _lock(self, fd: int) -> None:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise StoreError(f"{self.path}: held by another process, is a qubesd running?") from error

    def _hold(self, fd: int) -> None:
        self.close()
        self._held = fd
        self._seen = _identity(os.fstat(fd))

    def _on_disk(self) -> _Identity | None:
        try:
            return _identity(os.stat(self.path))
        except FileNotFoundError:
            return None

    def _replace(self, data: bytes) -> int:
        """Make ``data`` the content behind the path; returns the new file, open and locked."""
        fd, name = tempfile.mkstemp(prefix=f"{self.path.name}~", dir=self.path.parent)
        try:
            os.fchmod(fd, _MODE)
            if self._group:
                shutil.chown(name, group=self._group)
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(fd)
            self._lock(fd)
            self._keep_previous()
            os.replace(name, self.path)
            try:
                sync(self.path.parent)
            except OSError:
                self._put_back()
                raise
        except BaseException:
            os.close(fd)
            Path(name).unlink(missing_ok=True)
            raise
        return fd

    def _keep_previous(self) -> None:
        if self._seen is not None:
            self._name(self.path, self.previous)

    def _put_back(self) -> None:
        """Undo a replacement that may not last: the caller will be told that nothing changed."""
        if self._seen is None:
            self.path.unlink()
        else:
            self._name(self.previous, self.path)

    def _name(self, file: Path, name: Path) -> None:
        """Have ``name`` stand for this file as well, whatever it stood for, in one step."""
        self._link.unlink(missing_ok=True)
        os.link(file, self._link)
        os.replace(self._link, name)
        # Where both names stood for one file already, the kernel replaces nothing and leaves the link.
        self._link.unlink(missing_ok=True)


def _identity(stat: os.stat_result) -> _Identity:
    """What tells one version of a file from another."""
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
