"""Watching everything that a policy is made of, wherever it lies.

A place is watched before it is looked at. So what changes later is told, and what changed before is seen:
nothing falls between. Of a directory only the entries that were asked for count, unless all of it was listed,
and of a file its content; so links are followed step by step, and what is missing is waited for in the
directory where it would appear.

A file that is written in place is cut short until its writer closes it, and the kernel tells of both. So it
is with one that was just made, which is empty before it is written.

Not seen: a file system that is mounted over a directory, a change made on another machine to a shared file
system, and writes through memory maps. SIGHUP is for these.
"""

from __future__ import annotations

import os
import posixpath
import stat

from broker.inotify import Inotify, pyinotify
from policy_engine import DirectorySource

_ANOTHER = pyinotify.IN_CREATE | pyinotify.IN_DELETE | pyinotify.IN_MOVED_FROM | pyinotify.IN_MOVED_TO
_WRITING = pyinotify.IN_MODIFY | pyinotify.IN_CLOSE_WRITE
_ENTRIES = (
    _ANOTHER
    | _WRITING
    | pyinotify.IN_ATTRIB
    | pyinotify.IN_DELETE_SELF
    | pyinotify.IN_MOVE_SELF
    | pyinotify.IN_ONLYDIR
)
_CONTENT = _WRITING | pyinotify.IN_ATTRIB

_MAX_LINKS = 40


class Watches:
    """The watches of one policy that is read again and again.

    One thread at a time looks at places; the thread of the loop asks ``changed``.
    """

    def __init__(self) -> None:
        self._inotify = Inotify()
        self.descriptor = self._inotify.descriptor
        """Readable when ``changed`` has something to say."""
        self.blind: list[str] = []
        """Places that the kernel does not let us watch: ``/proc/sys/fs/inotify`` has its limits."""
        self._wanted: dict[int, set[str] | None] = {}
        self._looked: dict[int, set[str] | None] = {}
        self._numbers: dict[str, int] = {}
        # Files by their own watch, and by the watch of their directory and their name in it: whoever writes a
        # new file may have begun before it had a watch of its own.
        self._read: set[tuple[int, str]] = set()
        self._written: set[tuple[int, str]] = set()

    def begin(self) -> None:
        """Everything is about to be looked at anew."""
        self._looked = {}
        self._numbers = {}
        self._read = set()
        self.blind = []

    def end(self) -> None:
        """Everything was looked at; forget what was not among it."""
        before, self._wanted = self._wanted, self._looked
        for number in before.keys() - self._looked.keys():
            self._inotify.remove(number)

    def entry(self, directory: str, name: str) -> None:
        """Watch for what has this name in a directory; neither need be there."""
        number = self._watch(directory, _ENTRIES)
        names = None if number is None else self._looked.setdefault(number, set())
        if names is not None:
            names.add(name)

    def listing(self, directory: str) -> None:
        """Watch for every name in a directory."""
        number = self._watch(directory, _ENTRIES)
        if number is not None:
            self._looked[number] = None

    def content(self, file: str) -> None:
        """Watch what a file holds."""
        number = self._watch(file, _CONTENT)
        if number is not None:
            self._looked[number] = None
            self._read.add((number, ""))
        directory, name = posixpath.split(file)
        if directory in self._numbers:
            self._read.add((self._numbers[directory], name))

    def changed(self) -> bool:
        """Whether anything happened since it was last asked that may matter. Does not wait."""
        found = False
        for number, mask, name in self._inotify.news():
            if mask & pyinotify.IN_Q_OVERFLOW:
                self._written.clear()
                found = True
            elif mask & pyinotify.IN_IGNORED:
                self._written = {file for file in self._written if file[0] != number}
            if self._matters(number, name):
                self._note(number, mask, name)
                # What a file holds is for its own watch to tell: much else is written in a directory.
                found = found or not (name and mask & _WRITING)
        return found

    @property
    def unfinished(self) -> bool:
        """Whether somebody has made or begun to write a file that was looked at last, and not closed it."""
        return not self._written.isdisjoint(self._read)

    def _note(self, number: int, mask: int, name: str) -> None:
        if mask & pyinotify.IN_MODIFY or (mask & pyinotify.IN_CREATE and self._is_new(number, name)):
            self._written.add((number, name))
        elif mask & (pyinotify.IN_CLOSE_WRITE | _ANOTHER):
            self._written.discard((number, name))

    def _is_new(self, number: int, name: str) -> bool:
        """Whether what was made is an empty file, which somebody has open, to write and to close it. A link,
        whether hard or symbolic, is whole when it is made."""
        directory = self._inotify.place(number)
        if directory is None:  # nobody looks there any more
            return False
        try:
            made = os.lstat(posixpath.join(directory, name))
        except OSError:  # it is gone
            return False
        return stat.S_ISREG(made.st_mode) and made.st_size == 0 and made.st_nlink == 1

    def close(self) -> None:
        self._inotify.close()

    def _matters(self, number: int, name: str) -> bool:
        for watched in (self._wanted, self._looked):
            if number in watched:
                names = watched[number]
                # Without a name it is about the place itself, which may be gone or another.
                if names is None or not name or name in names:
                    return True
        return False

    def _watch(self, path: str, mask: int) -> int | None:
        number = self._numbers.get(path)
        if number is None:
            number = self._inotify.add(path, mask)
            if number is None:
                # Whoever removed it while we came is told of by the directory above.
                if os.path.lexists(path):
                    self.blind.append(path)
                return None
            self._numbers[path] = number
        return number


class WatchedSource:
    """The real file system, each place watched before it is looked at."""

    def __init__(self, watches: Watches) -> None:
        self._files = DirectorySource()
        self._watches = watches

    def names(self, directory: str) -> list[str]:
        place = self._walk(directory)
        if place is not None:
            self._watches.listing(place)
            for name in os.listdir(place):
                if os.path.islink(posixpath.join(place, name)):
                    self._walk(posixpath.join(place, name))
        return self._files.names(directory)

    def read(self, path: str, limit: int) -> bytes:
        place = self._walk(path)
        if place is not None:
            self._watches.content(place)
        return self._files.read(path, limit)

    def resolve(self, path: str) -> str:
        self._walk(path)
        return self._files.resolve(path)

    def is_file(self, path: str) -> bool:
        self._walk(path)
        return self._files.is_file(path)

    def is_directory(self, path: str) -> bool:
        self._walk(path)
        return self._files.is_directory(path)

    def _walk(self, path: str) -> str | None:
        """Watch each step to a place, links followed; the place, or ``None`` where it is not there."""
        done, followed = "/", 0
        ahead = posixpath.join(os.getcwd(), path).split("/")[::-1]
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = posixpath.dirname(done)
                continue
            self._watches.entry(done, part)
            step = posixpath.join(done, part)
            try:
                if not stat.S_ISLNK(os.lstat(step).st_mode):
                    done = step
                    continue
                target = os.readlink(step)
            except (OSError, ValueError):  # ValueError: a NUL in it, or what no file name can have here
                return None
            followed += 1
            if followed > _MAX_LINKS:
                return None
            done = "/" if target.startswith("/") else done
            ahead.extend(target.split("/")[::-1])
        return done
