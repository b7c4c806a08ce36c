"""One of the two daemons: its process, the sockets that calls go through, and alice's streams."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from uuid import UUID

from broker.client import CallError, call, connect, events, received, send_all
from broker.wire import ESTABLISHED, encode_call, encode_event
from qubesd.api.call import Call
from tools.crashing.subject import Subject
from tools.interfering.household import MARK, carry_out, expose, is_silent
from tools.interfering.masks import Masks
from tools.interfering.rules import OPERATOR
from tools.interfering.steps import Step
from tools.interfering.streams import PATIENCE, News, Stream
from tools.interfering.words import LAST_DISPOSABLE

_BRACED = re.compile(r"\{(\w+)(?: ([\w-]+))?\}")
_KEPT_DISPOSABLES = 3
_SEEN = ("device-added:block", "domain-shutdown")
"""What a daemon tells of a qube whose guest has told of its device, or has stopped."""


class Side:
    """A daemon below ``root``, which is laid out.

    ``disposables`` are those that came of the steps, the latest last; those of concealed steps apart.
    """

    def __init__(self, root: Path, command: Sequence[str]) -> None:
        self.subject = Subject(root, command)
        self.root = root
        self.masks = Masks(root)
        self.disposables: dict[bool, list[str]] = {False: [], True: []}
        self.uuids: dict[str, str] = {}
        self._exposed: Sequence[str] = ()
        self._tokens: dict[tuple[str, bool], str] = {}
        self._streams: dict[tuple[str, str], Stream] = {}

    def begin(self, exposed: Sequence[str]) -> None:
        """Start the daemon; the qubes in ``exposed`` tell of a device of their own whenever they run."""
        self._exposed = exposed
        self.subject.begin()

    def ready(self) -> bool:
        return self.subject.ready()

    def dom0(self, script: str, lenient: bool = False) -> None:
        carry_out(self.subject.socket, script, self.root, lenient)
        self._expose()

    def meet(self) -> None:
        """Learn the uuids of the qubes that are there."""
        rows = call(self.subject.socket, "admin.vm.List").decode("ascii").splitlines()
        self.uuids = {row.split()[0]: row.rpartition("uuid=")[2] for row in rows}
        self.masks.names |= {uuid.encode(): name.encode() for name, uuid in self.uuids.items()}

    def send(self, step: Step) -> socket.socket | None:
        """Begin the step; ``None`` where its caller is gone."""
        words = (step.argument, step.target, step.payload.decode("latin-1"))
        argument, target, payload = (self._filled(word, step) for word in words)
        request = encode_call(Call(step.service, argument, "dom0", target, payload.encode("latin-1")))
        path = self.subject.socket if step.caller == "dom0" else self.channel(step.caller)
        try:
            connection = connect(path, PATIENCE)
        except FileNotFoundError:
            return None
        send_all(connection, request)
        return connection

    def receive(self, step: Step, connection: socket.socket | None) -> bytes:
        """The answer, of a stream its begin only: how many events follow it at once is up to the clock."""
        if connection is None:
            return b"(no such caller)"
        answer = b""
        with connection:
            for data in received(connection):
                answer += data
                if answer.startswith(ESTABLISHED):
                    return ESTABLISHED
        self._notice(step, answer)
        self._expose()
        return answer

    def plain(self, step: Step, answer: bytes) -> bytes:
        """An answer with its masks on."""
        if not self.masks.knows(answer):
            self.meet()
        return self.masks.plain(answer, step.argument if ".property.Get" in step.service else "")

    def _filled(self, text: str, step: Step) -> str:
        """With what this daemon has drawn for the words in braces."""

        def drawn(found: re.Match[str]) -> str:
            kind, name = found.groups()
            if kind == "uuid":
                return self._uuid(name)
            if kind == "root":
                return str(self.root)
            if kind == "token":
                return self._tokens.get((step.caller, step.concealed), "none")
            return self._disposable()

        return _BRACED.sub(drawn, text)

    def _uuid(self, name: str) -> str:
        """That of a qube; where it is not there, one that both daemons draw alike."""
        uuid = self.uuids.get(name, str(UUID(int=Random(name).getrandbits(128), version=4)))
        self.masks.names[uuid.encode()] = name.encode()
        return uuid

    def _expose(self) -> None:
        """Have the guests tell of what they expose, and wait until the daemon has told of it: when it does is
        up to the clock."""
        for backend in self._exposed:
            if is_silent(self.root, backend):
                with closing(events(self.subject.socket, backend, timeout=PATIENCE)) as told:
                    next(told)
                    expose(self.root, backend)
                    while next(told).name not in _SEEN:
                        continue

    def _disposable(self) -> str:
        """The latest that alice can know of."""
        known = self.disposables[False]
        return known[-1] if known else "disp9999"

    def channel(self, name: str) -> Path:
        return self.root / f"run/rpc/{self.uuids.get(name, 'none')}.sock"

    def _notice(self, step: Step, answer: bytes) -> None:
        if not answer.startswith(b"0\0"):
            return
        content = answer[2:].decode("latin-1")
        if step.service == "admin.vm.CreateDisposable" and content:
            self.meet()
            name = self.masks.names[content[5:].encode()].decode() if content.startswith("uuid:") else content
            self.masks.disposable(name.encode())
            self.disposables[step.concealed].append(name)
        elif step.service.endswith(".CloneFrom"):
            self._tokens[step.caller, step.concealed] = content

    def tidy(self) -> None:
        """Remove all but the latest disposables."""
        for names in self.disposables.values():
            while len(names) > _KEPT_DISPOSABLES:
                for service in ("admin.vm.Kill", "admin.vm.Remove"):
                    with suppress(CallError):  # it may be halted, or gone
                        call(self.subject.socket, service, names[0])
                del names[0]

    def listen(self, service: str, target: str) -> bytes:
        """Open a stream of alice's if it is not open; what it begins with, or the refusal. The word
        ``LAST_DISPOSABLE`` stands for that one."""
        key = service, target
        if key in self._streams:
            return b""
        place = self._disposable() if target == LAST_DISPOSABLE else target
        connection = connect(self.channel(OPERATOR), PATIENCE)
        send_all(connection, encode_call(Call(service, "", "dom0", place, b"")))
        stream = Stream(connection)
        if stream.open:
            self._streams[key] = stream
        return self.masks.plain(stream.begin)

    def news(self, number: int) -> dict[tuple[str, str], News]:
        """What came on each stream since the last time, until a change that alice sees."""
        feature = f"mark-{number}"
        call(self.subject.socket, "admin.vm.feature.Set", MARK, feature, b"1")
        call(self.subject.socket, "admin.vm.feature.Remove", MARK, feature)
        mark = encode_event(MARK, f"domain-feature-delete:{feature}", (("feature", feature),))
        told = {}
        for key in sorted(self._streams, key=lambda key: key[1] != "dom0"):
            stream = self._streams[key]
            news = stream.news(mark if key == ("admin.Events", "dom0") else None)
            told[key] = News(self._masked(news.in_turn), self._masked(news.beside))
            if not stream.open:
                del self._streams[key]
        return told

    def _masked(self, events: Sequence[bytes]) -> list[bytes]:
        if not all(map(self.masks.knows, events)):
            self.meet()
        return [self.masks.plain(event) for event in events]

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self.subject.kill()
