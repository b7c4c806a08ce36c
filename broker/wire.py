"""Bytes to calls, replies to bytes, and back for clients; no sockets, no qubes, no policy.

A request is one header of four words, a NUL and a payload that ends where the sender stops writing. A reply
is one message of kind ``0`` (content) or ``2`` (an error), or a stream of messages of kind ``1`` (events).
The forms are those of the specification of the wire protocol, sections 2 and 3; the quirks of its clients are
answered here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qubesd.api.call import Call
from qubesd.errors import PermissionDenied, ProtocolError, QubesError

MAX_REQUEST = 65_536
MAX_NOTES_REQUEST = 256_000 + 1_024
"""Bytes of a request of admin.vm.notes.Set, whose documented limit no other request could reach
(``spec/wire-protocol.md`` 2)."""
_NOTES = b"admin.vm.notes.Set+"
"""Bytes of a whole request: header, NUL and payload."""

MAX_EVENT = 1_048_576
"""Bytes of one event that a client is willing to hold."""

REFUSAL = "denied by policy, record"
"""How every denial by policy begins; the number of the caller's own call follows, and nothing else."""

_NEVER_FORMATTED = frozenset({ProtocolError.wire_name, PermissionDenied.wire_name})


def _limit(untrusted_head: bytes) -> int:
    """How long a request may be that begins like this."""
    return MAX_NOTES_REQUEST if untrusted_head.startswith(_NOTES) else MAX_REQUEST


class FramingError(Exception):
    """The bytes are no message. A server closes the connection without a byte; the text is for its log."""


class RequestReader:
    """Collects the bytes of one request as they come, never more than ``MAX_REQUEST``, or for notes
    ``MAX_NOTES_REQUEST``."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, untrusted_data: bytes | memoryview) -> None:
        """Take the next bytes; raises ``FramingError`` with the first one above the limit."""
        if len(self._buffer) + len(untrusted_data) > MAX_REQUEST:
            most = _limit(bytes(self._buffer[: len(_NOTES)]) + bytes(untrusted_data[: len(_NOTES)]))
            if len(self._buffer) + len(untrusted_data) > most:
                self._buffer.clear()
                raise FramingError(f"request longer than {most} bytes")
        self._buffer += untrusted_data

    def source(self) -> str | None:
        """The second word of the header as it stands, ``None`` until the header is whole or where it has
        none."""
        untrusted_header, nul, _ = self._buffer.partition(b"\0")
        words = untrusted_header.split(b" ", 2)
        return words[1].decode("latin-1") if nul and len(words) == 3 else None

    def end(self) -> bytes:
        """Everything up to the end of the stream, which has come; the reader is empty after it."""
        whole = bytes(self._buffer)
        self._buffer.clear()
        return whole


def parse_call(untrusted_request: bytes) -> Call:
    """Read one framed request, whole.

    The names in the result are text without blanks, but nothing has been looked up and no name was checked.
    ``keyword adminvm`` is ``dom0``.

    Raises:
        FramingError: no NUL, not four words, an unknown kind of destination, or a header that is not ASCII.
    """
    untrusted_header, nul, payload = untrusted_request.partition(b"\0")
    if not nul:
        raise FramingError("no NUL after the header")
    if not untrusted_header.isascii():
        raise FramingError("header is not ASCII")
    words = untrusted_header.decode("ascii").split(" ", 3)
    if len(words) != 4:
        raise FramingError(f"expected 4 words in the header, found {len(words)}")
    method, source, kind, target = words
    if kind == "keyword" and target == "adminvm":
        target = "dom0"
    elif kind != "name":
        raise FramingError("unknown kind of destination")
    service, _, argument = method.partition("+")
    return Call(service, argument, source, target, payload)


def encode_call(call: Call) -> bytes:
    """The bytes that ``parse_call`` reads as this call, written as stock clients do (always with a ``+``).

    Raises:
        FramingError: a word holds a blank or a NUL, is not ASCII, the service holds a ``+``, or it is too
        long.
    """
    if "+" in call.service:
        raise FramingError("the service holds a '+'")
    header = f"{call.service}+{call.argument} {call.source} name {call.target}"
    if not header.isascii() or "\0" in header or header.count(" ") != 3 + call.target.count(" "):
        raise FramingError("a word of the header holds a blank, a NUL or a character that is not ASCII")
    request = header.encode("ascii") + b"\0" + call.payload
    if len(request) > _limit(request):
        raise FramingError(f"request longer than {_limit(request)} bytes")
    return request


def encode_content(content: str) -> bytes:
    """An answer."""
    return b"0\0" + content.encode("utf-8", "backslashreplace")


def encode_error(error: QubesError) -> bytes:
    """An answer that says what went wrong.

    Stock clients apply ``%`` to the text for every class but two, so a literal ``%`` is doubled for the
    others.
    """
    text = str(error)
    if error.wire_name not in _NEVER_FORMATTED:
        text = text.replace("%", "%%")
    return b"2\0%s\0\0%s\0" % (error.wire_name.encode("ascii"), _plain(text))


def encode_refusal(record: int) -> bytes:
    """The one answer to everything that policy denies; ``record`` is the caller's count of its own calls."""
    return encode_error(PermissionDenied(f"{REFUSAL} {record}"))


def encode_event(subject: str | None, name: str, keys: Iterable[tuple[str, str]] = ()) -> bytes:
    """One message of an event stream. What is not ASCII is escaped; a NUL cannot end a field early."""
    fields = [b"1", _plain(subject or ""), _plain(name)]
    for key, value in keys:
        if not key:
            raise ValueError("a key of an event is empty, which would end the message")
        fields += (_plain(key), _plain(value))
    fields += (b"", b"")
    return b"\0".join(fields)


def _plain(text: str) -> bytes:
    encoded = text.encode("ascii", "backslashreplace")
    return encoded.replace(b"\0", b"\\x00") if b"\0" in encoded else encoded


ESTABLISHED = encode_event(None, "connection-established")
"""The first message of every stream: whoever reads it misses nothing after it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A reply of kind ``2``: the class under its wire name, and the text with its fields filled in."""

    kind: str
    message: str

    @property
    def refused(self) -> bool:
        """Whether policy denied the call, so that it was never looked at."""
        return self.kind == PermissionDenied.wire_name and self.message.startswith(REFUSAL)


@dataclass(frozen=True, slots=True)
class WireEvent:
    """An event as it goes over the wire; ``subject`` is empty for the system's own."""

    subject: str
    name: str
    keys: Mapping[str, str] = field(default_factory=dict)


def parse_reply(untrusted_reply: bytes) -> bytes | Failure:
    """Read a whole reply: the content, or what went wrong.

    Raises:
        FramingError: no reply at all, or bytes that are none.
    """
    if untrusted_reply.startswith(b"0\0"):
        return untrusted_reply[2:]
    if untrusted_reply.startswith(b"2\0"):
        parts = untrusted_reply.split(b"\0", 4)
        if len(parts) == 5:
            kind = parts[1].decode("ascii", "backslashreplace")
            fields = parts[4].split(b"\0")[:-1]
            return Failure(kind, _formatted(kind, parts[3], fields))
    raise FramingError("no reply" if not untrusted_reply else "neither content nor an error")


def _formatted(kind: str, untrusted_format: bytes, untrusted_fields: list[bytes]) -> str:
    text = untrusted_format.decode("utf-8", "backslashreplace")
    if kind in _NEVER_FORMATTED:
        return text
    values = tuple(
        int(one) if one.isdigit() and len(one) < 20 else one.decode("utf-8", "backslashreplace")
        for one in untrusted_fields
    )
    try:
        return text % values
    except (TypeError, ValueError):
        return text


class EventReader:
    """Reads the messages of an event stream from bytes as they come."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, untrusted_data: bytes) -> list[WireEvent]:
        """The events that these bytes complete, in order.

        Raises:
            FramingError: a message of another kind, or one that is longer than ``MAX_EVENT``.
        """
        self._buffer += untrusted_data
        events: list[WireEvent] = []
        # An error, which is told instead of a stream, has no end of its own and is left for ``end``.
        while self._buffer and not self._buffer.startswith(b"2"):
            if not b"1\0".startswith(self._buffer[:2]):
                raise FramingError("expected an event")
            event = self._one()
            if event is None:
                break
            events.append(event)
        if len(self._buffer) > MAX_EVENT:
            raise FramingError(f"event longer than {MAX_EVENT} bytes")
        return events

    def end(self) -> Failure | None:
        """The error that the stream ended with, if any. Raises ``FramingError`` within a message."""
        if not self._buffer:
            return None
        reply = parse_reply(self._buffer)
        return reply if isinstance(reply, Failure) else None

    def _one(self) -> WireEvent | None:
        """Take a whole event off the front, if one is there."""
        words: list[str] = []
        position = 2
        while True:
            end = self._buffer.find(b"\0", position)
            if end < 0:
                return None
            word = self._buffer[position:end].decode("utf-8", "backslashreplace")
            position = end + 1
            if not word and len(words) >= 2 and len(words) % 2 == 0:
                break
            words.append(word)
        self._buffer = self._buffer[position:]
        return WireEvent(words[0], words[1], dict(zip(words[2::2], words[3::2], strict=True)))
