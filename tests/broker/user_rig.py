"""A user in front of dom0's screen: an agent on the real sockets that does what a test says."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.sockets import short_path

Asked = Mapping[str, Any]


def first_choice(asked: Asked) -> str:
    """Yes to whatever is asked."""
    return f"allow:{asked['targets'][0]}"


@dataclass
class User:
    """``answers`` makes the answer to a question, and may take its time; ``asked`` and ``told`` are all that
    came so far, in order."""

    answers: Callable[[Asked], str] = first_choice
    asked: list[Asked] = field(default_factory=list)
    told: list[Asked] = field(default_factory=list)

    def questions(self) -> list[Asked]:
        """What was asked since the last time."""
        asked, self.asked = self.asked, []
        return asked

    def serve(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            header, _, message = b"".join(iter(lambda: connection.recv(65_536), b"")).partition(b"\0")
            content = json.loads(message)
            if header.startswith(b"policy.Notify "):
                self.told.append(content)
                return
            self.asked.append(content)
            connection.sendall(self.answers(content).encode("ascii"))


@contextmanager
def user_at(services: Path) -> Iterator[User]:
    """A user whose agent listens among these services; each question has a thread of its own."""
    user = User()
    services.mkdir(parents=True, exist_ok=True)
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            thread = threading.Thread(target=user.serve, args=(connection,))
            threads.append(thread)
            thread.start()

    for name in ("policy.Ask", "policy.Notify"):
        listener = socket.socket(socket.AF_UNIX)
        with short_path(services / name) as path:
            listener.bind(path)
        listener.listen(64)
        listeners.append(listener)
        threads.append(threading.Thread(target=accept, args=(listener,)))
        threads[-1].start()
    try:
        yield user
    finally:
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in threads:
            thread.join(30)
