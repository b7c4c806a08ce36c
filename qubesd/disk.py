"""What a failing disk keeps us from doing, in words that say what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_ADVICE = {
    errno.ENOSPC: "free some space there and try again",
    errno.EDQUOT: "free some space there and try again",
    errno.EROFS: "mount its file system writable and try again",
    errno.EACCES: "let the daemon's user write there and try again",
    errno.ENOENT: "put its folder back and try again",
    errno.EFBIG: "raise the daemon's limit on the size of files and try again",
}


def why(error: Exception) -> str:
    """The reason that the operating system gives, and advice."""
    number = error.errno if isinstance(error, OSError) else None
    advice = _ADVICE.get(number or 0, "see the log of the kernel and of the daemon")
    return f"{reason(error)}: {advice}"


def reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def sync(place: Path) -> None:
    """Have a file's content, or a folder's names, survive a loss of power."""
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
