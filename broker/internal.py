"""Asking a daemon of dom0 over its internal socket, as a whole within a time and a size."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

from broker.client import CallError, NoReplyError
from broker.sockets import short_path
from broker.wire import Failure, FramingError, encode_call, parse_reply
from qubesd.api.call import Call
from qubesd.model.state import DOM0

_CHUNK = 1 << 20


async def ask(path: Path, service: str, patience: float, most: int) -> bytes:
    """The content of the answer to a call that dom0 makes, on itself.

    Args:
        patience: seconds that all of it may take.
        most: bytes that the answer may have.

    Raises:
        CallError: the daemon answers with an error.
        NoReplyError: it closes without an answer, or what it sends is none, or more than ``most``.
        OSError: the socket cannot be reached (``TimeoutError``: it did not answer in time).
    """
    request = encode_call(Call(service, "", DOM0, DOM0, b""))
    answer = bytearray()
    try:
        async with asyncio.timeout(patience):
            with short_path(path) as name:
                reader, writer = await asyncio.open_unix_connection(name, limit=_CHUNK)
            with closing(writer):
                writer.write(request)
                writer.write_eof()
                while data := await reader.read(_CHUNK):
                    answer += data
                    if len(answer) > most:
                        raise NoReplyError(f"more than {most} bytes")
    except TimeoutError:
        raise TimeoutError(f"no answer within {patience:g} s") from None
    try:
        reply = parse_reply(bytes(answer))
    except FramingError as error:
        raise NoReplyError(str(error)) from error
    if isinstance(reply, Failure):
        raise CallError(reply)
    return reply
