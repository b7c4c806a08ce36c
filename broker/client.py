"""Calling a qubesd from Python: one function for a call, one iterator for events.

    from broker.client import call
    call("/run/qubesd.sock", "admin.vm.property.Get", "work", "netvm")
    call("/run/qubesd.sock", "admin.vm.Start", "work")

Every call is its own connection. On a socket that belongs to a caller (``rpc/<uuid>.sock``, ``user.sock``)
the server knows who calls and does not look at ``source``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from broker.sockets import short_path
from broker.wire import EventReader, Failure, FramingError, WireEvent, encode_call, parse_reply
from qubesd.api.call import Call

_CHUNK = 65_536


class CallError(Exception):
    """The server answered with an error.

    ``kind`` is its class on the wire, such as ``QubesVMNotFoundError``; ``refused`` tells whether policy
    denied it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.message}")
        self.kind = failure.kind
        self.message = failure.message
        self.refused = failure.refused


class NoReplyError(Exception):
    """The server closed the connection without an answer: it may not be called from here, or broke off."""


def call(
    path: str | Path,
    service: str,
    target: str = "dom0",
    argument: str = "",
    payload: bytes = b"",
    *,
    source: str = "dom0",
    timeout: float | None = 60.0,
) -> bytes:
    """Make one call and return the content of its answer.

    Args:
        path: the server's socket.
        target: the qube it is about, by name or ``uuid:`` and uuid.
        argument: without the ``+``; empty for none.
        source: who calls; believed on dom0's own socket only.
        timeout: seconds to wait for the server to go on; ``None`` waits for ever.

    Raises:
        CallError: the server answered with an error.
        NoReplyError: it closed without an answer.
        broker.wire.FramingError: the call cannot be written as one, such as with a blank in a name.
        OSError: the socket cannot be reached (``TimeoutError``: or did not answer in time).
    """
    request = encode_call(Call(service, argument, source, target, payload))
    with closing(connect(path, timeout)) as connection:
        send_all(connection, request)
        untrusted_reply = b"".join(received(connection))
    try:
        reply = parse_reply(untrusted_reply)
    except FramingError as error:
        raise NoReplyError(f"{os.fspath(path)}: {service}: {error}") from error
    if isinstance(reply, Failure):
        raise CallError(reply)
    return reply


def events(
    path: str | Path,
    target: str = "dom0",
    *,
    service: str = "admin.Events",
    source: str = "dom0",
    timeout: float | None = None,
) -> Generator[WireEvent, None, None]:
    """Yield the events of one qube, or of everything for ``dom0``, until the server ends the stream.

    The first is always ``connection-established``: nothing that happens after it is missed. ``timeout`` is in
    seconds between two events. Raises as ``call`` does; close the iterator to hang up.
    """
    with closing(connect(path, timeout)) as connection:
        send_all(connection, encode_call(Call(service, "", source, target, b"")))
        reader = EventReader()
        any_byte = False
        for untrusted_data in received(connection):
            any_byte = True
            yield from reader.feed(untrusted_data)
        failure = reader.end()
        if failure is not None:
            raise CallError(failure)
    if not any_byte:
        raise NoReplyError(f"{os.fspath(path)}: {service}: no reply")


def connect(path: str | Path, timeout: float | None = None) -> socket.socket:
    """A connection to a socket, however long its path; ``timeout`` in seconds holds for each later step."""
    place = Path(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with short_path(place) as name:
            connection.connect(name)
    except OSError as error:
        connection.close()
        raise type(error)(error.errno, error.strerror or str(error), str(place)) from None
    return connection


def send_all(connection: socket.socket, data: bytes) -> None:
    """Send and say that this was all. A server that has stopped reading may still have answered: read on."""
    try:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        pass


def received(connection: socket.socket) -> Iterator[bytes]:
    """What the server sends, as it comes, to its end; a connection that it broke off ends there."""
    while True:
        try:
            untrusted_data = connection.recv(_CHUNK)
        except ConnectionResetError:
            return
        if not untrusted_data:
            return
        yield untrusted_data
