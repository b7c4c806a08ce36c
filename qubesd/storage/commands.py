"""Running a storage tool: a list of arguments, never a shell's line; bounded, and its words checked."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from qubesd.errors import StorageError

Run = Callable[[Sequence[str], bytes], bytes]
"""Runs a program with this on its standard input; its standard output. Raises ``StorageError``."""

_PATIENCE = 300.0
"""Seconds that a tool may take."""
_MOST_WORDS = 200
"""Characters of a tool's complaint that are passed on."""
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def run(arguments: Sequence[str], data: bytes = b"") -> bytes:
    """Run the program ``arguments[0]``; ``StorageError`` where it is missing, fails or does not end."""
    try:
        done = subprocess.run(
            list(arguments), input=data, capture_output=True, timeout=_PATIENCE, check=False, env=_ENVIRONMENT
        )
    except FileNotFoundError as error:
        raise StorageError(f"{arguments[0]}: not installed; install it and try again") from error
    except subprocess.TimeoutExpired as error:
        raise StorageError(f"{arguments[0]}: did not end within {_PATIENCE:.0f} seconds") from error
    except OSError as error:
        raise StorageError(f"{arguments[0]}: cannot be run: {error.strerror}") from error
    if done.returncode:
        lines = done.stderr.decode("ascii", "replace").strip().splitlines() or [f"status {done.returncode}"]
        words = "".join(letter if letter.isprintable() else "?" for letter in lines[-1])
        raise StorageError(f"{arguments[0]}: failed: {words[:_MOST_WORDS]}")
    return done.stdout
