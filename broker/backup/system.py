"""The running system as a restore meets it: calls of the Admin API, and imports of volumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from broker.client import CallError, NoReplyError, call
from broker.services.volume_import import Places, imported
from broker.wire import Failure, FramingError, parse_reply
from qubesd.disk import why
from qubesd.errors import QubesError, StorageError
from qubesd.model.state import DOM0
from qubesd.storage.receiving import write

_PATIENCE = 600.0
"""Seconds that qubesd may take for one answer: a commit may copy."""


class Refused(QubesError):
    """The system did not do one thing that was asked of it."""


class LiveSystem:
    """Makes calls over dom0's sockets.

    Args:
        socket: where dom0 calls.
        internal: where dom0's own programs ask.
        source: the qube in whose name the calls are made, and judged.
    """

    def __init__(self, socket: Path, internal: Path, source: str = DOM0) -> None:
        self._socket = socket
        self._internal = internal
        self._source = source

    def ask(self, service: str, target: str = DOM0, argument: str = "", payload: str = "") -> str:
        """The answer of a call.

        Raises:
            Refused: it is an error.
            QubesError: nobody answers.
        """
        data = payload.encode("utf-8", "surrogateescape")
        try:
            answer = call(
                self._socket, service, target, argument, data, source=self._source, timeout=_PATIENCE
            )
        except CallError as error:
            raise Refused(f"{service}: {error.message}") from error
        except (NoReplyError, FramingError) as error:
            raise Refused(f"{service}: {error}") from error
        except OSError as error:
            raise QubesError(f"{self._socket}: {error.strerror or error}; is qubesd running?") from error
        return answer.decode("utf-8", "replace")

    def qubes(self) -> dict[str, str]:
        """The class of each qube by its name."""
        rows = (line.split(" ") for line in self.ask("admin.vm.List").splitlines())
        return {row[0]: row[1].removeprefix("class=") for row in rows}

    def labels(self) -> set[str]:
        return set(self.ask("admin.label.List").splitlines())

    def import_image(
        self, qube: str, volume: str, size: int, pieces: Callable[[], Iterator[tuple[int, bytes]]]
    ) -> None:
        """Replace a volume by an image of this size with these data in it, or leave it as it is.

        Raises:
            Refused: qubesd does not take it.
            QubesError: the data are not to be had, or nobody answers.
        """
        failures: list[QubesError] = []

        def fill(target: Path, _: int) -> None:
            try:
                _write(target, pieces())
            except QubesError as error:
                failures.append(error)
                raise StorageError(f"the restore failed: {error}") from error

        places = Places(self._source, qube, volume, self._internal)
        try:
            answer = parse_reply(imported(places, str(size).encode("ascii"), fill))
        except (OSError, FramingError) as error:
            raise QubesError(f"{self._internal}: {error}") from error
        if failures:
            raise failures[0]
        if isinstance(answer, Failure):
            raise Refused(f"volume {volume!r} was not imported: {answer.message}")


def _write(target: Path, pieces: Iterator[tuple[int, bytes]]) -> None:
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for place, piece in pieces:
                write(writer, memoryview(piece), place)
            os.fsync(writer)
        finally:
            os.close(writer)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {why(error)}") from error
