"""Where policy files are: a few verbs, over real directories or over files in memory."""

import errno
import os
import posixpath
import stat
from collections.abc import Iterable, Mapping
from typing import Protocol


class PolicySource(Protocol):
    """What the loader needs of a file system. Paths are absolute."""

    def names(self, directory: str) -> list[str]:
        """The names of the regular files in it, links followed, in any order. Raises ``OSError``."""

    def read(self, path: str, limit: int) -> bytes:
        """The first ``limit`` bytes of a regular file. Raises ``OSError``."""

    def resolve(self, path: str) -> str:
        """The path with links followed and ``.`` and ``..`` removed; parts that do not exist are no error."""

    def is_file(self, path: str) -> bool:
        """Whether there is a regular file, links followed."""

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory, links followed."""


class DirectorySource:
    """The real file system."""

    def names(self, directory: str) -> list[str]:
        return [name for name in os.listdir(directory) if os.path.isfile(os.path.join(directory, name))]

    def read(self, path: str, limit: int) -> bytes:
        # Not to be caught by a pipe or device that took the file's place: such an open must not wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return file.read(limit)

    def resolve(self, path: str) -> str:
        try:
            return os.path.realpath(path)
        except (
            ValueError
        ):  # a NUL in it, or characters that file names cannot have here: no file, but no error
            return os.path.normpath(path)

    def is_file(self, path: str) -> bool:
        return os.path.isfile(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)


class MemorySource:
    """Files in memory under virtual absolute paths: for candidates that are not written yet, and for tests.

    Args:
        files: path to content; the directories above them exist.
        directories: further directories that exist.
        links: path of a symbolic link to its target, absolute or relative to the link's directory.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        directories: Iterable[str] = (),
        links: Mapping[str, str] | None = None,
    ) -> None:
        self._links = dict(links or {})
        self._files = {self.resolve(path): content for path, content in files.items()}
        self._directories: dict[str, set[str]] = {}
        for path in directories:
            self._enter(self.resolve(path))
        for path in (*self._files, *self._links):
            parent, name = posixpath.split(path)
            self._enter(self.resolve(parent)).add(name)

    def _enter(self, directory: str) -> set[str]:
        names = self._directories.get(directory)
        if names is None:
            names = self._directories[directory] = set()
            if directory != "/":
                self._enter(posixpath.dirname(directory))
        return names

    def names(self, directory: str) -> list[str]:
        names = self._directories.get(self.resolve(directory))
        if names is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
        return [name for name in names if self.is_file(posixpath.join(directory, name))]

    def read(self, path: str, limit: int) -> bytes:
        content = self._files.get(self.resolve(path))
        if content is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return content[:limit]

    def resolve(self, path: str) -> str:
        done, followed = "/", 0
        ahead = path.split("/")[::-1]
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = posixpath.dirname(done)
                continue
            step = posixpath.join(done, part)
            target = self._links.get(step)
            if target is None or followed == _MAX_LINKS:
                done = step
                continue
            followed += 1
            done = "/" if target.startswith("/") else done
            ahead.extend(target.split("/")[::-1])
        return done

    def is_file(self, path: str) -> bool:
        return self.resolve(path) in self._files

    def is_directory(self, path: str) -> bool:
        return self.resolve(path) in self._directories


_MAX_LINKS = 40
